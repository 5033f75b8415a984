"""Static quantization against torch.ao's observers and its own rules."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from kondense.artifacts.model import Model
from kondense.artifacts.quantized import ActivationQuantizer
from kondense.data.dataset import Dataset
from kondense.networks.build import NetworkSpec
from kondense.quantize.graph import quantizer_places, trace_graph
from kondense.quantize.grid import activation_quantizer, largest_scale, round_to_grid
from kondense.quantize.static import static
from kondense.quantize.static.observers import BINS, Observation, observe
from kondense.quantize.static.ranges import minmax_range, percentile_range
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

from tests.support.quantize_makers import make_dataset, make_model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16)


@pytest.fixture(scope="module")
def lenet(dataset: Dataset) -> Model:
    return make_model("lenet5", dataset, width=0.5)


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> Tensor:
    return dataset.normalise(dataset.train.images)


@pytest.mark.parametrize(
    "values",
    [torch.linspace(-1.7, 3.1, 100), torch.linspace(0.5, 2, 50), torch.linspace(-3, -1, 50), torch.zeros(5)],
    ids=["mixed", "positive", "negative", "zeros"],
)
def test_activation_grid_is_that_of_torchs_observer(values: Tensor) -> None:
    observer = MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    observer(values)
    scale, zero_point = observer.calculate_qparams()
    found = activation_quantizer(float(values.min()), float(values.max()))
    torch.testing.assert_close(torch.tensor([found.scale]), scale.reshape(1), rtol=0, atol=0)
    assert found.zero_point == int(zero_point)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weight_scales_are_those_of_torchs_observer(bits: int) -> None:
    weight = torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    limit = 2 ** (bits - 1) - 1
    observer = PerChannelMinMaxObserver(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-limit, quant_max=limit
    )
    observer(weight)
    scale, _ = observer.calculate_qparams()
    torch.testing.assert_close(largest_scale(weight, bits, "channel"), scale, rtol=0, atol=0)


def watch(observer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        observer(inputs[0])

    return hook


def test_a_models_scales_are_those_of_torchs_observers(lenet: Model, images: Tensor) -> None:
    quantized = static.quantize(lenet, images.split(64))
    observers = {name: MinMaxObserver(dtype=torch.quint8) for name in quantized.activations}
    handles = []
    for name, observer in observers.items():
        handles.append(lenet.module.get_submodule(name).register_forward_pre_hook(watch(observer)))
    try:
        with torch.no_grad():
            lenet.module(images)
    finally:
        for handle in handles:
            handle.remove()
    for name, observer in observers.items():
        scale, zero_point = observer.calculate_qparams()
        found = quantized.activations[name]
        torch.testing.assert_close(torch.tensor([found.scale]), scale.reshape(1), rtol=0, atol=0)
        assert found.zero_point == int(zero_point)


def test_weights_match_torchs_own_rounding(lenet: Model, images: Tensor) -> None:
    quantized = static.quantize(lenet, [images])
    for name, tensor in quantized.quantized.items():
        weight = lenet.module.get_parameter(name).detach()
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        expected = torch.quantize_per_channel(weight, tensor.scale, zeros, 0, torch.qint8)
        assert int((expected.int_repr().int() - tensor.integers.int()).abs().max()) <= 1
        assert float((expected.int_repr() != tensor.integers).double().mean()) < 1e-3
        assert torch.equal(quantized.module.get_parameter(name), tensor.dequantize())


def test_first_and_last_layers_are_included(lenet: Model, images: Tensor) -> None:
    quantized = static.quantize(lenet, [images])
    assert list(quantized.activations) == ["conv1", "conv2", "fc1", "fc2"]
    assert set(quantized.quantized) == {f"{name}.weight" for name in quantized.activations}
    assert not lenet.quantized and not any(layer._forward_pre_hooks for layer in lenet.module.modules())


def test_biases_lie_on_the_grid_of_the_accumulator(lenet: Model, images: Tensor) -> None:
    quantized = static.quantize(lenet, [images])
    for name, activation in quantized.activations.items():
        steps_O = quantized.module.get_parameter(f"{name}.bias").double() / (
            quantized.quantized[f"{name}.weight"].scale.double() * activation.scale
        )
        torch.testing.assert_close(steps_O, steps_O.round(), rtol=1e-6, atol=1e-3)
        assert float(steps_O.abs().max()) < 2**31


def test_a_pruned_channel_with_a_bias_stays_within_int32(dataset: Dataset, images: Tensor) -> None:
    model = make_model("lenet5", dataset, width=0.5, steps=1)
    with torch.no_grad():
        model.module.conv1.weight[0] = 0
        model.module.conv1.bias[0] = 3.0
    quantized = static.quantize(model, [images])
    bias = float(quantized.module.conv1.bias[0])
    scale = float(quantized.quantized["conv1.weight"].scale[0]) * quantized.activations["conv1"].scale
    assert bias == pytest.approx(3.0, rel=1e-6)
    assert bias / scale < 2**31


def test_convolution_outputs_that_meet_an_addition_are_quantized(dataset: Dataset, images: Tensor) -> None:
    quantized = static.quantize(make_model("resnet8", dataset, width=0.5, steps=4), [images])
    assert {"blocks.0.bn2", "blocks.1.bn2", "blocks.1.shortcut.1"} <= set(quantized.activations)
    # The shortcut and the convolution beside it see the same tensor, so they share a grid.
    assert quantized.activations["blocks.0.shortcut"] == quantized.activations["blocks.0.conv1"]
    # A ReLU's output needs no integers below zero.
    assert quantized.activations["blocks.0.conv2"].zero_point == 0


def test_quantizers_are_placed_behind_transparent_modules() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.Hardswish(), nn.Flatten()
    )
    assert quantizer_places(trace_graph(module), ["0", "3"]) == ["0", "3", "4"]


def test_percentile_clips_outliers() -> None:
    values = torch.cat([torch.linspace(0, 1, 10_000), torch.tensor([100.0])])
    counts = torch.histc(values, bins=BINS, min=0, max=100).long()
    observation = Observation(0.0, 100.0, counts)
    assert minmax_range(observation) == (0.0, 100.0)
    low, high = percentile_range(observation, 99.9)
    assert low == 0.0
    assert 0.95 < high < 1.1
    assert percentile_range(observation, 100.0) == (0.0, 100.0)


def test_percentile_against_quantiles() -> None:
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    observation = observe(nn.Identity(), [""], values.split(50_000))[""]
    low, high = percentile_range(observation, 98.0)
    assert low == pytest.approx(float(values.kthvalue(2_000).values), abs=0.01)
    assert high == pytest.approx(float(values.kthvalue(198_000).values), abs=0.01)


def test_fewer_bits_give_larger_errors(lenet: Model, images: Tensor) -> None:
    with torch.no_grad():
        expected_NK = lenet.module(images)
        errors = [
            float((static.quantize(lenet, [images], bits=bits).module(images) - expected_NK).norm())
            for bits in (8, 6, 4, 2)
        ]
    assert errors == sorted(errors)
    assert errors[0] < 0.05 * float(expected_NK.norm())


def test_the_integers_of_7_bits_never_saturate_16_bit_sums(lenet: Model, images: Tensor) -> None:
    quantized = static.quantize(lenet, [images], bits=7)
    largest = max(int(tensor.integers.abs().max()) for tensor in quantized.quantized.values())
    assert 2 * 255 * largest < 2**15


def test_empty_calibration_is_refused(lenet: Model, images: Tensor) -> None:
    for batches in ([], [images[:0]]):
        with pytest.raises(ValueError, match="at least 1 image, but got 0"):
            static.quantize(lenet, batches)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_calibration_that_is_not_finite_is_refused(lenet: Model, images: Tensor, value: float) -> None:
    damaged_NCHW = images[:4].clone()
    damaged_NCHW[1, 0, 3, 3] = value
    with pytest.raises(ValueError, match="must be finite, but the input of 'conv1'"):
        static.quantize(lenet, [damaged_NCHW])
    assert not any(layer._forward_pre_hooks for layer in lenet.module.modules())


class Unused(nn.Module):
    """A network with a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(256, 10)
        self.unused = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(images.flatten(1))


def test_a_layer_that_never_runs_stays_in_float(images: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "kondense"):
        quantized = static.quantize(Model(Unused().eval(), NetworkSpec("lenet5", {})), [images])
    assert set(quantized.quantized) == {"fc.weight"}
    assert "does not call in evaluation mode remain in float: unused" in caplog.text


def test_a_network_that_calls_no_layer_is_refused(images: Tensor) -> None:
    module = Unused().eval()
    module.forward = lambda images_NCHW: images_NCHW.flatten(1)[:, :10]
    with pytest.raises(ValueError, match="calls none of fc, unused itself"):
        static.quantize(Model(module, NetworkSpec("lenet5", {})), [images])


def test_simulation_is_integer_arithmetic(lenet: Model, images: Tensor) -> None:
    """The simulated first convolution equals one computed on integers throughout."""
    quantized = static.quantize(lenet, [images])
    activation: ActivationQuantizer = quantized.activations["conv1"]
    weight = quantized.quantized["conv1.weight"]
    integers_NCHW = torch.round(images[:8] / activation.scale).add(activation.zero_point).clamp(0, 255)
    centred_NCHW = (integers_NCHW - activation.zero_point).double()
    scale_O11 = (weight.scale.double() * activation.scale).reshape(-1, 1, 1)
    bias_O = torch.round(quantized.module.conv1.bias.double() / scale_O11.flatten())
    expected = nn.functional.conv2d(centred_NCHW, weight.integers.double(), bias_O) * scale_O11
    with torch.no_grad():
        found = quantized.module.conv1(images[:8])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_round_to_grid_clips_what_lies_outside() -> None:
    tensor = round_to_grid(torch.tensor([[-9.0, 0.4, 0.6, 9.0]]), torch.ones(1), 3)
    assert tensor.integers.tolist() == [[-3, 0, 1, 3]]


def test_masked_names_and_lineage_stay(lenet: Model, images: Tensor) -> None:
    model = dataclasses.replace(lenet, masked=("fc1.weight",), lineage=({"stage": "train"},))
    quantized = static.quantize(model, [images])
    assert quantized.masked == ("fc1.weight",)
    assert quantized.lineage == ({"stage": "train"},)
