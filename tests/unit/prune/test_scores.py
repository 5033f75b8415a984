"""Scores of taylor and random."""

import pytest
import torch
import torch.nn.functional as F
from kondense.prune.config import PruneConfig
from kondense.prune.masks import random, taylor
from kondense.prune.stage import preparer
from torch import nn

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset


def network():
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))


def request(**settings):
    return make_context(PruneConfig(batch_size=24, **settings), toy_dataset(size=4, train=60))


def test_taylor_is_how_much_the_loss_changes_without_the_weight():
    """The reference nudges each weight towards zero, batch by batch, in double precision."""
    module, asked = network(), request(method="taylor")
    weights = {name: module.get_parameter(name) for name in ("1.weight", "4.weight")}
    found = taylor.score(module, weights, asked)
    dataset = asked.dataset
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(asked.config.seed))
    module.double().eval()
    for name, weight in weights.items():
        for position in [(0, 3), (2, 1)]:
            squares = []
            for index in order.split(24):
                images, labels = dataset.normalise(dataset.train.images[index]).double(), dataset.train.labels[index]
                losses, value = [], float(weight[position])
                for factor in (1 + 1e-5, 1 - 1e-5):
                    with torch.no_grad():
                        weight[position] = factor * value
                        losses.append(float(F.cross_entropy(module(images), labels)))
                        weight[position] = value
                squares.append(((losses[0] - losses[1]) / 2e-5) ** 2)
            assert float(found[name][position]) == pytest.approx((sum(squares) / len(squares)) ** 0.5, rel=1e-3)


def test_taylor_leaves_the_network_as_it_was():
    module = network().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module[1].weight.grad = torch.ones_like(module[1].weight)
    preparer(taylor.score)(module, request(method="taylor", sparsity=0.5)).masks(module, {}, 0.5)
    assert module.training
    assert torch.equal(module[1].weight.grad, torch.ones_like(module[1].weight))
    assert module[4].weight.grad is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_random_is_a_uniform_lot_of_the_seed():
    weights = {"b": nn.Parameter(torch.zeros(40, 25)), "a": nn.Parameter(torch.zeros(30, 10))}
    first, again, other = (random.score(nn.Identity(), weights, request(seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name]) for name in weights)
    assert first["b"].shape == (40, 25)
    everything = torch.cat([first["a"].flatten(), first["b"].flatten()])
    counts = torch.histc(everything, bins=10, min=0, max=1)
    assert float(((counts - 130) ** 2 / 130).sum()) < 33.7  # chi-squared, 9 degrees of freedom, 1 in 10,000


def test_random_masks_take_the_same_share_of_any_weights():
    module = network()
    masks = preparer(random.score)(module, request(method="random", sparsity=0.5)).step(1.0)
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    assert pruned == 38  # of 76
    with torch.no_grad():
        module[1].weight.copy_(torch.arange(64.0).reshape(4, 16))
    repeated = preparer(random.score)(module, request(method="random", sparsity=0.5)).step(1.0)
    assert all(torch.equal(mask, repeated[name]) for name, mask in masks.items())
