"""Fake quantization against torch's own operators, and batch norms against torch's own convolutions with norms."""

import copy

import pytest
import torch
from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.quantized import ActivationQuantizer
from kondense.quantize.fake_quantize import FakeQuantizedLayer, FakeQuantizedNetwork, InputGrid, WeightGrid
from kondense.quantize.grid import largest_scale, round_to_grid
from torch import nn

from tests.support.quantize_makers import make_dataset, make_model


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_and_gradients_are_those_of_torchs_learnable_operator(bits: int, granularity: str) -> None:
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(6, 5, 3, 3, generator=generator)
    step = largest_scale(weight, bits, granularity) * 0.6  # some weights are clipped
    grid = WeightGrid(step, bits)
    found, expected = (weight.clone().requires_grad_() for _ in range(2))
    upstream = torch.randn(weight.shape, generator=generator)
    limit = 2 ** (bits - 1) - 1
    factor = (limit * weight.numel() / len(step)) ** -0.5
    scale = step.clone().requires_grad_()
    zeros = torch.zeros(len(step))
    if granularity == "channel":
        reference = torch._fake_quantize_learnable_per_channel_affine(expected, scale, zeros, 0, -limit, limit, factor)
    else:
        reference = torch._fake_quantize_learnable_per_tensor_affine(expected, scale, zeros, -limit, limit, factor)
    result = grid(found)
    torch.testing.assert_close(result, reference)
    (result * upstream).sum().backward()
    (reference * upstream).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)
    torch.testing.assert_close(grid.step.grad, scale.grad, rtol=1e-4, atol=1e-6)
    assert torch.equal(result, round_to_grid(weight, step, bits).dequantize())


@pytest.mark.parametrize("zero_point", [0, 100, 255])
def test_inputs_are_rounded_as_the_artifact_will_and_the_step_learns(zero_point: int) -> None:
    values = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    quantizer = ActivationQuantizer(0.01, zero_point)
    grid = InputGrid(quantizer)
    rounded = grid(values)
    assert torch.equal(rounded, quantizer(nn.Identity(), (values,))[0])
    assert grid.quantizer() == ActivationQuantizer(float(torch.tensor(0.01)), zero_point)
    rounded.square().sum().backward()
    expected = values.detach().clone().requires_grad_()
    scale = torch.tensor([0.01]).requires_grad_()
    factor = (255 * 75) ** -0.5
    reference = torch._fake_quantize_learnable_per_tensor_affine(
        expected, scale, torch.tensor([float(zero_point)]), 0, 255, factor
    )
    reference.square().sum().backward()
    torch.testing.assert_close(values.grad, expected.grad)
    torch.testing.assert_close(grid.step.grad, scale.grad, rtol=1e-3, atol=1e-5)


def test_a_step_that_turns_negative_counts_by_its_size() -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    plus, minus = WeightGrid(torch.full((4,), 0.3), 4), WeightGrid(torch.full((4,), -0.3), 4)
    assert torch.equal(plus(weight), minus(weight))
    for grid in (plus, minus):
        grid(weight).square().sum().backward()
    torch.testing.assert_close(plus.step.grad, -minus.step.grad)


def test_two_byte_steps_are_such_as_bfloat16_holds() -> None:
    grid = WeightGrid(torch.tensor([0.1234567]), 4, two_bytes=True)
    assert torch.equal(grid.scale(), grid.scale().bfloat16().float())
    assert not torch.equal(grid.scale(), grid.step)


def normed() -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, -0.5, 0.3, 1.5]))
        norm.bias.uniform_(-1, 1)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return layer, norm


def test_without_rounding_training_is_that_of_the_layer_and_its_norm() -> None:
    layer, norm = normed()
    plain = copy.deepcopy(nn.Sequential(layer, norm)).train()
    wrapped = FakeQuantizedLayer(layer, norm, WeightGrid(torch.ones(5), 8), None)
    wrapped.weight_grid = nn.Identity()
    wrapped.train()
    images = torch.randn(8, 3, 6, 6) * 3
    found, expected = wrapped(images), plain(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, plain[1].running_mean)
    torch.testing.assert_close(norm.running_var, plain[1].running_var)
    found.square().mean().backward()
    expected.square().mean().backward()
    torch.testing.assert_close(layer.weight.grad, plain[0].weight.grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(norm.weight.grad, plain[1].weight.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", ["evaluation", "frozen"])
def test_in_evaluation_and_frozen_the_layer_is_the_folded_one(mode: str) -> None:
    layer, norm = normed()
    folded = fold_batch_norms(nn.Sequential(layer, norm))[0]
    step = largest_scale(folded.weight, 4, "channel")
    with torch.no_grad():
        folded.weight.copy_(round_to_grid(folded.weight, step, 4).dequantize())
    wrapped = FakeQuantizedLayer(layer, norm, WeightGrid(step, 4), None)
    before = norm.running_mean.clone()
    if mode == "frozen":
        wrapped.freeze(frozen=True)
        wrapped.train()
    else:
        wrapped.eval()
    images = torch.randn(8, 3, 6, 6)
    torch.testing.assert_close(wrapped(images), folded(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(wrapped.weight, folded.weight, rtol=1e-4, atol=1e-5)  # which a network may read itself
    torch.testing.assert_close(wrapped.bias, folded.bias, rtol=1e-4, atol=1e-5)
    assert torch.equal(norm.running_mean, before)
    wrapped.freeze(frozen=False)
    wrapped.train()
    assert norm.training


def test_unwrapping_gives_the_network_back() -> None:
    model = make_model("resnet8", make_dataset(size=16), width=0.5, steps=2)
    module = copy.deepcopy(model.module)
    names = ["conv1", "blocks.1.conv1", "blocks.1.shortcut.0", "fc"]
    grids = {name: WeightGrid(torch.full((1,), 0.05), 8) for name in names}
    first, second = ActivationQuantizer(0.02, 100), ActivationQuantizer(0.03, 7)
    activations = {
        "blocks.1.shortcut": first,  # a container of a layer that is wrapped itself
        "blocks.1.conv1": first,
        "blocks.1.shortcut.0": first,
        "blocks.1.bn2": second,
        "blocks.1.shortcut.1": second,
        "fc": second,
    }
    norms = {"conv1": "bn1", "blocks.1.conv1": "blocks.1.bn1", "blocks.1.shortcut.0": "blocks.1.shortcut.1"}
    network = FakeQuantizedNetwork(module, grids, activations, norms)
    assert len(network.grids) == 2  # equal grids are one
    state = network.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values() if tensor.numel()}) == len(state)  # can be checkpointed
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 10)
    assert network.parameter_name("fc.weight") in dict(network.named_parameters())
    assert network.parameter_name("blocks.0.conv1.weight") in dict(network.named_parameters())
    assert network.activations().keys() == activations.keys()
    back = network.unwrap()
    expected = model.module.state_dict()
    assert {name: type(each) for name, each in back.named_modules()} == {
        name: type(each) for name, each in model.module.named_modules()
    }
    assert all(torch.equal(tensor, expected[name]) for name, tensor in back.state_dict().items())
    assert back.state_dict().keys() == expected.keys()
