"""Weight-only quantization against a search over every scale that bfloat16 holds."""

import pytest
import torch
from kondense.artifacts.model import Model
from kondense.networks.build import NetworkSpec, build
from kondense.quantize.grid import largest_scale, rows, weight_limit
from kondense.quantize.weight_only import quantize, quantize_weight, squared_error
from torch import Tensor


def brute_force(values_M: Tensor, bits: int) -> float:
    """Return the least squared error of one row over all bfloat16 scales that could be best."""
    limit = weight_limit(bits)
    largest = float(values_M.abs().max()) / limit
    scales = torch.arange(2**15, dtype=torch.int16).view(torch.bfloat16).float()
    best = float("inf")
    for scale in scales[(scales >= 0.2 * largest) & (scales <= 1.008 * largest)].tolist():
        grid_M = (values_M / scale).round().clamp(-limit, limit) * scale
        best = min(best, float((grid_M - values_M).square().sum()))
    return best


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_error_is_the_least_that_two_byte_scales_allow(bits: int, granularity: str) -> None:
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(bits))
    weight[0] *= 10
    tensor = quantize_weight(weight, bits=bits, granularity=granularity)
    values_RM = rows(weight, granularity)
    found_R = squared_error(values_RM, tensor.scale, bits)
    assert tensor.scale.shape == ((6,) if granularity == "channel" else (1,))
    for values_M, found in zip(values_RM, found_R.tolist(), strict=True):
        assert found <= brute_force(values_M, bits) * (1 + 1e-4)


@pytest.mark.parametrize("bits", range(2, 9))
def test_not_noticeably_worse_than_the_scale_that_clips_nothing(bits: int) -> None:
    weight = torch.randn(20, 100, generator=torch.Generator().manual_seed(0))
    tensor = quantize_weight(weight, bits=bits, granularity="channel")
    plain_R = squared_error(weight, largest_scale(weight, bits, "channel"), bits)
    assert (squared_error(weight, tensor.scale, bits) <= 1.1 * plain_R).all()


def test_values_are_what_the_integers_say_and_scales_take_two_bytes() -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    tensor = quantize_weight(weight, bits=5, granularity="channel")
    assert tensor.integers.dtype == torch.int8
    assert int(tensor.integers.abs().max()) <= 15
    assert torch.equal(tensor.scale, tensor.scale.bfloat16().float())


def test_zeros_stay_zeros_and_a_zero_channel_is_fine() -> None:
    weight = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    weight[:, ::2] = 0
    weight[5] = 0
    tensor = quantize_weight(weight, bits=4, granularity="channel")
    assert (tensor.integers[weight == 0] == 0).all()
    assert torch.isfinite(tensor.dequantize()).all()


def test_every_layer_is_quantized_and_the_model_stays_as_it_was() -> None:
    spec = NetworkSpec("resnet8", {"classes": 10, "channels": 1, "image_size": 28})
    module = build(spec).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    quantized = quantize(Model(module, spec), bits=3)
    assert len(quantized.quantized) == 10
    assert not quantized.activations
    for name, tensor in quantized.quantized.items():
        assert torch.equal(quantized.module.state_dict()[name], tensor.dequantize())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
