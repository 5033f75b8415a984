import copy

import pytest
import torch
from kondense.channels.dependencies import WEIGHTED, find_groups
from kondense.measuring.size import count_macs, count_parameters
from kondense.networks.build import NetworkSpec, build
from kondense.prune import channels
from kondense.prune.config import PruneConfig
from kondense.prune.scores import l1
from torch import nn

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset

NETWORKS = ["lenet5", "lenet_cifar", "lenet300", "resnet8", "mobilenet_small"]
SHAPE = (1, 16, 16)


def network(name):
    """A network whose batch norms have seen something, so that nothing cancels."""
    module = build(NetworkSpec(name, {"classes": 3, "channels": 1, "image_size": 16}), seed=5)
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return module.eval()


def request(fractions=None, excluded=(), **settings):
    return make_context(PruneConfig(**settings), toy_dataset(), fractions=fractions or {}, excluded=frozenset(excluded))


def images(count=4):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(2))


def silence(module, name, indices):
    """Make output channels of a layer, and of the norm after it, zero."""
    layer = module.get_submodule(name)
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias):
            if tensor is not None:
                tensor[indices] = 0.0


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_outputs_are_those_of_the_network_with_the_channels_zeroed(name, scope):
    module = network(name)
    silent = copy.deepcopy(module)
    asked = request(sparsity=0.35, scope=scope, reconstruct=False)
    groups = find_groups(module, SHAPE)
    scores = l1.score(module, groups)
    norms = {
        root: [
            member.name
            for member in group.members
            if member.output and isinstance(member.layer, (*WEIGHTED, nn.BatchNorm2d))
        ]
        for root, group in groups.items()
    }
    channels.prepare(module, asked, l1.score).step(1.0)
    removed = 0
    for root, values in scores.items():
        kept = module.get_submodule(root).weight.shape[0]
        lowest = values.argsort(stable=True)[: len(values) - kept]
        removed += len(lowest)
        for layer in norms[root]:
            silence(silent, layer, lowest)
    assert removed
    torch.testing.assert_close(module(images()), silent(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["macs", "parameters", "channels"])
@pytest.mark.parametrize("name", NETWORKS)
def test_reaches_the_target_in_multiples(name, target):
    module = network(name)
    before = [layer.weight.shape[0] for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]

    def cost():
        if target == "macs":
            return sum(count_macs(module, SHAPE).values())
        return count_parameters(module)

    whole = cost()
    limit = 0.3 if name != "lenet_cifar" else 0.2
    step = channels.prepare(module, request(sparsity=limit, target=target), l1.score).step
    for share in (0.6, 1.0):
        step(share)
    if target != "channels":
        assert cost() <= (1 - limit) * whole
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer, count in zip(layers, before, strict=True):
        assert layer.weight.shape[0] % 8 == 0 or layer.weight.shape[0] == count
    assert layers[-1].weight.shape[0] == 3
    assert module(images()).shape == (4, 3)


def test_a_fraction_of_a_layer_and_excluded_layers():
    module = network("lenet5")
    channels.prepare(module, request({"fc1": 0.5}, excluded=["conv1"], sparsity=0.0, round_to=4), l1.score).step(1.0)
    assert [layer.weight.shape[0] for layer in (module.conv1, module.conv2, module.fc1)] == [20, 50, 252]
    module = network("lenet5")
    channels.prepare(module, request({"conv2": 0.5}, excluded=["conv1"], sparsity=0.3, round_to=4), l1.score).step(1.0)
    assert module.conv1.out_channels == 20
    assert module.conv2.out_channels == 24


def test_layers_with_shared_channels_must_agree():
    asked = request({"conv1": 0.5, "blocks.0.conv2": 0.25}, sparsity=0.0)
    with pytest.raises(ValueError, match="layers that share channels must have the same fraction, but got"):
        channels.prepare(network("resnet8"), asked, l1.score)


def test_excluding_one_layer_keeps_all_that_share_its_channels():
    module = network("resnet8")
    channels.prepare(module, request(excluded=["blocks.0.conv2"], sparsity=0.3), l1.score).step(1.0)
    assert module.conv1.out_channels == module.blocks[0].conv2.out_channels == 16


def test_what_cannot_be_reached_is_refused_before_anything_is_changed():
    module = network("resnet8")
    with pytest.raises(ValueError, match=r"sparsity must be at most 0\.\d+ of the macs of this network .round_to 16"):
        channels.prepare(module, request(sparsity=0.9, round_to=16), l1.score)
    assert module.conv1.out_channels == 16
    with pytest.raises(ValueError, match="the network has no channel to remove"):
        channels.prepare(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), request(), l1.score)


def test_where_every_layer_has_its_own_fraction_sparsity_asks_for_nothing():
    module = network("lenet5")
    fractions = {"conv1": 0.2, "conv2": 0.52, "fc1": 0.5}
    pruner = channels.prepare(module, request(fractions, sparsity=0.99, round_to=1, reconstruct=False), l1.score)
    pruner.step(1.0)
    assert [module.get_submodule(name).weight.shape[0] for name in fractions] == [16, 24, 250]
    assert pruner.shortfall() == ""
    with pytest.raises(ValueError, match="sparsity must be at most"):
        channels.prepare(
            network("lenet5"), request({"conv1": 0.2, "conv2": 0.52}, sparsity=0.999, round_to=8), l1.score
        )
