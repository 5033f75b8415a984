import copy

import pytest
import torch
from kondense.prune.config import PruneConfig
from kondense.prune.masks import nm
from kondense.prune.schedule import Ramp
from torch import nn
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset


def network(seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=2),
        nn.Flatten(),
        nn.Linear(2304, 32, bias=False),
        nn.ReLU(),
        nn.Linear(32, 3),
    )


def request(pattern="2:4", excluded=("0",), **settings):
    config = PruneConfig(method="nm", pattern=pattern, **settings)
    return make_context(config, toy_dataset(), excluded=frozenset(excluded))


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8", "1:2"])
def test_the_largest_of_every_group_stay_by_plain_loops(pattern):
    module = network()
    whole = copy.deepcopy(module)
    masks = nm.prepare(module, request(pattern)).step(1.0)
    keep, size = map(int, pattern.split(":"))
    assert sorted(masks) == ["2.weight", "4.weight", "6.weight"]
    for name, mask in masks.items():
        weight = whole.get_parameter(name).detach()
        for output in range(0, weight.shape[0], 5):
            for taps in [(0, 0), (2, 1)] if weight.ndim == 4 else [()]:
                for first in range(0, weight.shape[1], size):
                    group = [float(weight[(output, first + entry, *taps)].abs()) for entry in range(size)]
                    kept = [bool(mask[(output, first + entry, *taps)]) for entry in range(size)]
                    assert sum(kept) == keep
                    assert sorted(group)[-keep:] == sorted(
                        value for value, stays in zip(group, kept, strict=True) if stays
                    )
        assert torch.equal(module.get_parameter(name) != 0, mask)
    assert torch.equal(module[0].weight, whole[0].weight)


def test_torch_compresses_it_for_sparse_tensor_cores_without_loss():
    module = network()
    nm.prepare(module, request()).step(1.0)
    for layer in (module[2], module[4], module[6]):
        weight = layer.weight.detach()
        # What a convolution is as a matrix product: [O, kH * kW * I], inputs innermost.
        matrix = weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight
        rows = torch.zeros(32, 64 * -(-matrix.shape[1] // 64), dtype=torch.float16)  # the sizes that torch takes
        rows[: len(matrix), : matrix.shape[1]] = matrix.half()
        values, meta = sparse_semi_structured_from_dense_cutlass(rows)
        assert values.shape == (32, rows.shape[1] // 2)
        assert torch.equal(sparse_semi_structured_to_dense_cutlass(values, meta), rows)
    dense = network()[4].weight.detach()[:32, :64].half()
    values, meta = sparse_semi_structured_from_dense_cutlass(dense)  # what is not 2:4 does not survive
    assert not torch.equal(sparse_semi_structured_to_dense_cutlass(values, meta), dense)


def test_gradually_one_entry_of_each_group_at_a_time():
    module = network()
    masking = nm.prepare(module, request("1:4")).masking(Ramp("linear", epochs=1.0, steps=3))
    masks, kept = {}, []
    for step in range(1, 13):
        found = masking.update(module, masks, step, step / 12)
        if found is not None:
            assert all(not (found[name] & ~masks[name]).any() for name in masks)
            masks = found
            kept.append(float(masks["4.weight"].double().mean()))
    assert kept == [0.75, 0.5, 0.25]


def test_layers_that_the_pattern_does_not_divide_stay_and_are_named():
    pruner = nm.prepare(network(), request(excluded=()))
    assert sorted(pruner.step(1.0)) == ["2.weight", "4.weight", "6.weight"]
    assert pruner.details() == {"whole": {"0": "the number of its inputs, 1, is no multiple of 4"}}
    assert pruner.notes() == ["0 keeps all of its weights: the number of its inputs, 1, is no multiple of 4"]
    with pytest.raises(ValueError, match=r"pattern 2:4 needs layers .* multiple of 4, but 0 has 1\."):
        nm.prepare(network(), request(excluded=("2", "4", "6")))


@pytest.mark.parametrize("pattern", ["2", "4:2", "0:4", "4:4", "a:b", "2:4:8"])
def test_patterns_that_are_none_are_refused(pattern):
    with pytest.raises(ValueError, match=f"pattern must be n:m with 0 < n < m, such as 2:4, but got '{pattern}'"):
        PruneConfig(method="nm", pattern=pattern)
