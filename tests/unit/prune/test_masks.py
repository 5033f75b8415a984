import copy
import math

import pytest
import torch
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.masks import magnitude
from kondense.prune.masks.masks import ascending_order, choose_masks, layer_adaptive
from kondense.prune.schedule import Ramp
from kondense.prune.stage import preparer
from torch import nn
from torch.nn.utils import prune as torch_prune

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset


def network(name="resnet8"):
    return build(NetworkSpec(name, {"classes": 3, "channels": 1, "image_size": 16}), seed=3)


prepare = preparer(magnitude.score)


def request(**settings):
    fractions, excluded = settings.pop("fractions", {}), frozenset(settings.pop("excluded", ()))
    masked = settings.pop("masked", ())
    return make_context(
        PruneConfig(method="magnitude", **settings),
        toy_dataset(),
        fractions=fractions,
        excluded=excluded,
        masked=masked,
    )


def zeros(module, name):
    return float((module.get_parameter(name) == 0).double().mean())


@pytest.mark.parametrize("sparsity", [0.3, 0.9, 0.98])
@pytest.mark.parametrize("name", ["lenet300", "resnet8", "mobilenet_small"])
def test_global_masks_are_those_of_torch(name, sparsity):
    ours, theirs = network(name), network(name)
    masks = prepare(ours, request(sparsity=sparsity, scope="global")).step(1.0)
    layers = {path: layer for path, layer in theirs.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    torch_prune.global_unstructured(
        [(layer, "weight") for layer in layers.values()], pruning_method=torch_prune.L1Unstructured, amount=sparsity
    )
    emptied = 0
    for path, layer in layers.items():
        mask, ours_mask = layer.weight_mask.bool(), masks[f"{path}.weight"]
        if not mask.any():
            emptied += 1  # torch empties small layers at high sparsity, we keep their best weight
            assert ours_mask.sum() == 1
        else:
            assert (ours_mask != mask).sum() <= len(layers)
    if not emptied:
        assert all(torch.equal(masks[f"{path}.weight"], layer.weight_mask.bool()) for path, layer in layers.items())
    kept, total = (sum(int(count(mask)) for mask in masks.values()) for count in (torch.sum, torch.numel))
    assert total - kept == round(sparsity * total)


def test_layer_masks_are_those_of_torch():
    ours, theirs = network(), network()
    masks = prepare(ours, request(sparsity=0.7, scope="layer")).step(1.0)
    for name, layer in theirs.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            torch_prune.l1_unstructured(layer, "weight", amount=0.7)
            assert torch.equal(masks[f"{name}.weight"], layer.weight_mask.bool())


def test_by_hand():
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[0.1, -0.5], [0.3, 0.02]]))
        module[2].weight.copy_(torch.tensor([[-0.2, 0.9]]))
    bias = module[0].bias.clone()
    masks = prepare(module, request(sparsity=0.5)).step(1.0)
    assert masks["0.weight"].tolist() == [[False, True], [True, False]]
    assert masks["2.weight"].tolist() == [[False, True]]
    torch.testing.assert_close(module[0].weight, torch.tensor([[0.0, -0.5], [0.3, 0.0]]))
    assert torch.equal(module[0].bias, bias)


def test_never_empties_a_layer():
    module = network("lenet300")
    with torch.no_grad():
        module.fc2.weight.mul_(1e-6)  # all of it is smaller than all of the rest
    weights = sum(layer.weight.numel() for layer in (module.fc1, module.fc2, module.fc3))
    prepare(module, request(sparsity=1 - 3 / weights)).step(1.0)
    assert [int((layer.weight != 0).sum()) for layer in (module.fc1, module.fc2, module.fc3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        (
            {"sparsity": 1 - 1e-6},
            r"sparsity must be at most 0\.99997\d+, since each of fc1, fc2, fc3 keeps one of its weights",
        ),
        ({"sparsity": 0.9995, "scope": "layer"}, "'fc3' can lose at most 0.996667 of its 300 weights, but got 0.9995"),
        ({"sparsity": 0.5, "fractions": {"fc3": 0.9995}}, "'fc3' can lose at most 0.996667 of its 300 weights"),
        (
            {"sparsity": 0.5, "fractions": {"fc2": 0.995}, "granularity": "neurons"},
            "one of its neurons: 'fc2' can lose at most 0.99 of its 30000 weights, but got 0.995",
        ),
    ],
)
def test_more_than_every_layer_can_lose_is_refused(asked, rule):
    with pytest.raises(ValueError, match=rule):
        prepare(network("lenet300"), request(**asked))


def unit_means(weight, granularity):
    """Every unit's mean absolute weight, by plain loops, in the order of its first weight."""
    units = []
    for output in weight.detach().tolist():
        if granularity == "neurons":
            units.append(torch.tensor(output).abs().mean())
        else:
            units += [torch.tensor(kernel).abs().mean() for kernel in output]
    return torch.stack(units)


@pytest.mark.parametrize("granularity", ["kernels", "neurons"])
def test_kernels_and_neurons_go_as_one(granularity):
    module = network("lenet5")
    whole = copy.deepcopy(module)
    masks = prepare(module, request(sparsity=0.7, granularity=granularity, excluded=["fc1"], scope="global")).step(1.0)
    assert ("fc2.weight" in masks) is (granularity == "kernels")  # the classes are no neurons to lose
    total = sum(mask.numel() for mask in masks.values())
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    largest = max(mask[0].numel() if granularity == "neurons" else mask[0, 0].numel() for mask in masks.values())
    assert 0.7 * total - largest < pruned <= 0.7 * total
    kept_units, lost_units = [], []
    for name, mask in masks.items():
        units = (
            mask.flatten(1) if granularity == "neurons" else mask.flatten(0, 1).flatten(1) if mask.ndim > 2 else mask
        )
        units = units.reshape(len(units), -1) if granularity == "neurons" or mask.ndim > 2 else units.reshape(-1, 1)
        assert torch.equal(units.all(1), units.any(1))
        means = unit_means(whole.get_parameter(name), granularity)
        kept_units.append(means[units[:, 0]])
        lost_units.append(means[~units[:, 0]])
    assert torch.cat(kept_units).sort().values[len(masks)] >= torch.cat(lost_units).max()  # but for one per layer


def test_gradual_masks_rise_with_the_ramp_and_never_fall_back():
    module = network("lenet300")
    masking = prepare(module, request(sparsity=0.9)).masking(Ramp("cubic", epochs=2.0, steps=4))
    masks, sparsities = {}, []
    for step in range(1, 31):
        found = masking.update(module, masks, step, step / 10)
        if found is not None:
            assert all(not (found[name] & ~masks[name]).any() for name in masks)
            masks = found
            total = sum(mask.numel() for mask in masks.values())
            sparsities.append((step, 1 - sum(int(mask.sum()) for mask in masks.values()) / total))
    expected = [
        (step, 0.9 * (1 - (1 - progress) ** 3)) for step, progress in ((5, 0.25), (10, 0.5), (15, 0.75), (20, 1))
    ]
    assert [step for step, _ in sparsities] == [step for step, _ in expected]
    assert [sparsity for _, sparsity in sparsities] == pytest.approx([sparsity for _, sparsity in expected], abs=1e-5)


def test_steps_only_add_zeros_and_never_revive_a_weight():
    module = network()
    step = prepare(module, request(sparsity=0.9)).step
    first = step(0.5)
    with torch.no_grad():
        for name, mask in first.items():  # what training must not do
            module.get_parameter(name).add_(~mask * 10.0)
    second = step(1.0)
    for name, mask in second.items():
        assert not (mask & ~first[name]).any()
        assert torch.equal(module.get_parameter(name) != 0, mask)


def test_masks_of_an_earlier_stage_stay():
    module = network("lenet300")
    prepare(module, request(sparsity=0.6)).step(1.0)
    before = {name: weight != 0 for name, weight in module.named_parameters() if name.endswith("weight")}
    masks = prepare(module, request(sparsity=0.3, masked=tuple(before), excluded=["fc1"])).step(1.0)
    assert torch.equal(masks["fc1.weight"], before["fc1.weight"])
    for name in ("fc2.weight", "fc3.weight"):
        assert not (masks[name] & ~before[name]).any()


def test_fractions_of_single_layers_and_excluded_ones():
    module = network("lenet5")
    fractions = {"conv1": 0.2, "fc1": 0.9}
    prepare(module, request(sparsity=0.5, fractions=fractions, excluded=["fc2"])).step(1.0)
    assert zeros(module, "conv1.weight") == pytest.approx(0.2, abs=1e-3)
    assert zeros(module, "fc1.weight") == pytest.approx(0.9, abs=1e-3)
    assert zeros(module, "conv2.weight") == pytest.approx(0.5, abs=1e-3)
    assert zeros(module, "fc2.weight") == 0.0


def test_a_network_without_layers_is_told_so():
    with pytest.raises(ValueError, match=r"no layer whose weights can be pruned: only those of Conv2d and Linear can"):
        prepare(nn.Sequential(nn.BatchNorm2d(3)), request())


def test_excluding_everything_is_refused():
    module = network("lenet300")
    with pytest.raises(ValueError, match="exclude must leave a layer to prune, but got all of them"):
        prepare(copy.deepcopy(module), request(excluded=["fc1", "fc2", "fc3"]))


def test_layer_adaptive_scores_are_the_paper_s_and_choose_across_layers():
    scores = {"a": torch.tensor([[3.0, 1.0], [2.0, 0.0]]), "b": torch.tensor([[0.1, 0.2]])}
    # 9 / 9, 1 / (1 + 4 + 9), 4 / (4 + 9), 0; 0.01 / 0.05, 0.04 / 0.04
    expected = torch.tensor([[1.0, 1 / 14], [4 / 13, 0.0]])
    assert torch.allclose(layer_adaptive(scores["a"]), expected)
    kept = choose_masks(scores, 0.5, "lamp", {})
    # Half of six weights: 0, 1 / 14 and 1 / 5; plain magnitude would take 0 and all of b that it may.
    assert kept["a"].tolist() == [[True, False], [True, False]]
    assert kept["b"].tolist() == [[False, True]]


def test_layer_adaptive_scores_keep_pruned_weights_last():
    pruned = torch.tensor([1.0, -float("inf"), 2.0])
    assert layer_adaptive(pruned)[1] == -float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_is_that_of_a_stable_sort(dtype):
    values = torch.rand(500, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[::7], values[::11], values[3], values[5], values[6] = 0.25, 0.0, -0.0, math.inf, 1e-42
    for given in (values, values[:1], values[:0], values[::2]):
        ascending, order = ascending_order(given)
        wanted = given.sort(stable=True)
        assert torch.equal(ascending, wanted.values) and torch.equal(order, wanted.indices)


def test_layer_adaptive_scores_of_pruned_and_negative_weights_are_lowest():
    scores = torch.tensor([0.5, -math.inf, 0.0, -1.0, 2.0])
    wanted = torch.tensor([0.25 / 4.25, -math.inf, 0.0, 0.0, 1.0])
    torch.testing.assert_close(layer_adaptive(scores), wanted)
