"""Bias correction and learned rounding of static quantization."""

import copy

import pytest
import torch
from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.quantize.grid import largest_scale, round_to_grid
from kondense.quantize.static import static
from kondense.quantize.static.bias_correction import correct_bias, output_means
from kondense.quantize.static.learned_rounding import learn_rounding
from torch import Tensor, nn

from tests.support.quantize_makers import make_dataset, make_model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16)


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Model:
    return make_model("resnet8", dataset, width=0.5)


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> Tensor:
    return dataset.normalise(dataset.train.images)


def test_means_are_over_images_and_positions() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 4, 3)).eval()
    images = torch.randn(7, 1, 6, 6)
    means = output_means(module, ["0", "2"], images.split(3))
    hidden = module[0](images)
    torch.testing.assert_close(means["0"], hidden.double().mean((0, 2, 3)))
    torch.testing.assert_close(means["2"], module(images).double().mean(0))
    assert not any(layer._forward_hooks for layer in module.modules())


def test_a_shift_of_the_weights_is_taken_out() -> None:
    reference = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3)).eval()
    changed = copy.deepcopy(reference)
    with torch.no_grad():
        changed[2].weight += 0.3 * torch.randn(changed[2].weight.shape)
    batches = torch.randn(40, 1, 8, 8).split(16)
    means = output_means(reference, ["2"], batches)
    correct_bias(changed, "2", means, batches)
    torch.testing.assert_close(output_means(changed, ["2"], batches)["2"], means["2"], rtol=1e-4, atol=1e-5)


def test_corrected_biases_bring_every_layers_mean_closer(model: Model, images: Tensor) -> None:
    plain, corrected = (
        static.quantize(model, images.split(100), bits=4, bias_correction=flag) for flag in (False, True)
    )
    names = list(plain.activations)[:9]
    names = [name for name in names if f"{name}.weight" in plain.quantized]
    from kondense.artifacts.fold import fold_batch_norms

    expected = output_means(fold_batch_norms(model.module), names, [images])

    def errors(quantized: Model) -> float:
        found = output_means(quantized.module, names, [images])
        return sum(float((found[name] - expected[name]).norm() / expected[name].norm()) for name in names)

    assert errors(corrected) < 0.1 * errors(plain)
    for name, tensor in corrected.quantized.items():
        assert torch.equal(tensor.integers, plain.quantized[name].integers)
        bias_O = corrected.module.get_parameter(f"{name.removesuffix('.weight')}.bias").double()
        steps_O = bias_O / (tensor.scale.double() * corrected.activations[name.removesuffix(".weight")].scale)
        torch.testing.assert_close(steps_O, steps_O.round(), rtol=1e-6, atol=1e-3)


def output_error(layer: nn.Module, weight: Tensor, inputs: Tensor, targets: Tensor) -> float:
    outputs = torch.func.functional_call(layer, {"weight": weight}, (inputs,))
    return float((outputs - targets).square().mean())


def test_learned_rounding_halves_the_error_of_correlated_outputs() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(100, 30)
    inputs = (torch.randn(500, 20) @ torch.randn(20, 100)).relu()
    targets = layer(inputs).detach()
    scale = largest_scale(layer.weight, 4, "channel")
    found = learn_rounding(
        layer, scale, 4, inputs, targets, relu=False, steps=300, generator=torch.Generator().manual_seed(0)
    )
    floor = torch.floor(layer.weight.detach() / scale[:, None])
    assert set((found.integers - floor).unique().tolist()) == {0.0, 1.0}
    nearest = output_error(layer, round_to_grid(layer.weight, scale, 4).dequantize(), inputs, targets)
    assert output_error(layer, found.dequantize(), inputs, targets) < 0.5 * nearest


def test_learned_rounding_against_every_way_to_round() -> None:
    """8 weights, all 256 ways: never worse than the nearest, nor better than what is possible."""
    gained = 0
    for seed in range(8):
        torch.manual_seed(seed)
        layer = nn.Linear(8, 1)
        inputs = (torch.randn(200, 4) @ torch.randn(4, 8) + 0.3 * torch.randn(200, 8)).relu()
        targets = layer(inputs).detach()
        scale = largest_scale(layer.weight, 3, "tensor")
        floor = torch.floor(layer.weight.detach() / scale)
        ways = [torch.tensor([[(code >> place) & 1 for place in range(8)]]) for code in range(256)]
        best = min(output_error(layer, (floor + up).clamp(-3, 3) * scale, inputs, targets) for up in ways)
        generator = torch.Generator().manual_seed(seed)
        found = learn_rounding(layer, scale, 3, inputs, targets, relu=False, steps=200, generator=generator)
        learned = output_error(layer, found.dequantize(), inputs, targets)
        nearest = output_error(layer, round_to_grid(layer.weight, scale, 3).dequantize(), inputs, targets)
        assert best * (1 - 1e-5) <= learned <= nearest * (1 + 1e-5)
        gained += learned < nearest
    assert gained


def test_learned_rounding_through_relu_ignores_what_relu_hides() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    inputs = torch.randn(300, 6)
    with torch.no_grad():
        layer.bias.fill_(-100.0)  # always off
    targets = layer(inputs).detach()
    scale = largest_scale(layer.weight, 3, "channel")
    found = learn_rounding(
        layer, scale, 3, inputs, targets, relu=True, steps=50, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(found.integers, round_to_grid(layer.weight, scale, 3).integers)


def test_zeros_stay_zeros_when_rounding_is_learned(model: Model, images: Tensor) -> None:
    pruned = copy.deepcopy(model)
    with torch.no_grad():
        weight = pruned.module.blocks[1].conv1.weight
        weight *= weight.abs() > weight.abs().median()
    quantized = static.quantize(pruned, [images[:100]], bits=4, rounding_steps=20)
    zeros = pruned.module.blocks[1].conv1.weight == 0
    assert (quantized.quantized["blocks.1.conv1.weight"].integers[zeros] == 0).all()


def test_learned_rounding_brings_the_network_closer(model: Model, images: Tensor) -> None:
    with torch.no_grad():
        expected_NK = model.module(images)
        plain, learned = (
            static.quantize(model, images[:200].split(100), bits=4, rounding_steps=steps, seed=3) for steps in (0, 200)
        )
        errors = [float((each.module(images) - expected_NK).norm()) for each in (plain, learned)]
    assert errors[1] < 0.8 * errors[0]
    again = static.quantize(model, images[:200].split(100), bits=4, rounding_steps=200, seed=3)
    for name, tensor in learned.quantized.items():
        assert torch.equal(tensor.integers, again.quantized[name].integers)
        assert torch.equal(tensor.scale, plain.quantized[name].scale)


def test_all_refinements_together(model: Model, images: Tensor) -> None:
    quantized = static.quantize(
        model,
        images[:100].split(50),
        calibration="mse",
        symmetric=True,
        equalize=True,
        bias_correction=True,
        rounding_steps=10,
    )
    assert {each.zero_point for each in quantized.activations.values()} == {128}
    with torch.no_grad():
        expected_NK = model.module(images)
        assert float((quantized.module(images) - expected_NK).norm()) < 0.1 * float(expected_NK.norm())
