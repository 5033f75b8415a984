"""Integer grids follow the scale of what they hold, however small it is."""

import copy

import numpy as np
import pytest
import torch
from kondense.artifacts.model import Model
from kondense.codec.values import likeliest_line
from kondense.data.dataset import Dataset
from kondense.quantize import dynamic, stage, weight_only
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.grid import (
    SCALE_OF_ZEROS,
    SMALLEST_SCALE,
    activation_quantizer,
    largest_scale,
    round_to_grid,
    symmetric_quantizer,
)
from kondense.quantize.layers import weight_errors
from kondense.quantize.static import static
from torch import Tensor, nn

FACTORS = (2.0**-17, 2.0**-30, 2.0**-100)  # exact in float32
METHODS = ("static", "equalized", "dynamic", "weight_only")


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_small_weights_have_the_integers_of_large_ones(factor: float, granularity: str) -> None:
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    scale = largest_scale(weight, 8, granularity)
    torch.testing.assert_close(largest_scale(factor * weight, 8, granularity), factor * scale, rtol=1e-6, atol=0)
    small = round_to_grid(factor * weight, factor * scale, 8)
    assert torch.equal(small.integers, round_to_grid(weight, scale, 8).integers)


@pytest.mark.parametrize("factor", FACTORS)
def test_small_inputs_have_the_grid_of_large_ones(factor: float) -> None:
    for make in (activation_quantizer, symmetric_quantizer):
        large, small = make(-0.3, 0.7), make(-0.3 * factor, 0.7 * factor)
        assert small.scale == pytest.approx(factor * large.scale, rel=1e-6)
        assert small.zero_point == large.zero_point


def test_zeros_have_a_scale_with_room_for_a_bias_and_accumulators_are_normal_numbers() -> None:
    weight = torch.tensor([[0.0, 0.0], [127.0, 1.0]])
    assert largest_scale(weight, 8, "channel").tolist() == [SCALE_OF_ZEROS, 1.0]
    assert activation_quantizer(0.0, 0.0).scale == symmetric_quantizer(0.0, 0.0).scale == SCALE_OF_ZEROS
    assert torch.isfinite(1 / torch.tensor(SMALLEST_SCALE))
    weight = torch.full((1, 1), 1e-30)
    small = static.accumulator_safe(largest_scale(weight, 8, "channel"), None, activation_quantizer(0.0, 1e-20))
    assert float(small) * 1e-20 / 255 >= torch.finfo(torch.float32).tiny


class Normed(nn.Module):
    """A layer whose weights may be tiny, since a norm follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(16, 24), nn.LayerNorm(24, eps=0.0)
        self.last = nn.Linear(24, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.norm(self.first(images.flatten(1))))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("factor", [2.0**-110, 2.0**-50, 2.0**100])
def test_the_scale_of_least_error_follows_weights_of_any_size(factor: float, bits: int) -> None:
    weight = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    expected = factor * weight_only.least_error_scale(weight, bits, "channel")
    assert torch.equal(weight_only.least_error_scale(factor * weight, bits, "channel"), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [2.0**-100, 2.0**100])
def test_layers_that_scale_down_and_up_again_are_quantized_like_others(method: str, factor: float) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4)).eval()
    scaled = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in scaled[1].parameters():
            parameter.mul_(factor)
        scaled[3].weight.div_(factor)
    images = torch.randn(64, 1, 4, 4)
    quantize = {
        "static": lambda model: static.quantize(model, [images]),
        "equalized": lambda model: static.quantize(model, [images], equalize=True),
        "dynamic": dynamic.quantize,
        "weight_only": lambda model: weight_only.quantize(model, bits=4),
    }[method]
    outputs = []
    for each in (module, scaled):
        model = Model(each)
        quantized = quantize(model)
        errors = weight_errors(quantized, model)
        assert all(0 < error < 0.3 for error in errors.values()) and len(errors) == 2 or method == "equalized"
        outputs.append(quantized.module(images).detach())
    assert (outputs[1] - outputs[0]).norm() < 0.01 * outputs[0].norm()


@pytest.mark.parametrize("factor", [2.0**-90, 2.0**90])
def test_the_line_of_images_does_not_depend_on_the_size_of_weights(factor: float) -> None:
    image = np.add.outer(np.sin(np.arange(7.0)), np.cos(np.arange(7.0))).ravel().astype(np.float32)
    weight = np.tile(image, (8, 6)) * np.arange(1, 9, dtype=np.float32)[:, None]
    with np.errstate(all="raise"):
        assert likeliest_line(weight) == likeliest_line(np.float32(factor) * weight) != 0


def test_a_layer_that_is_rounded_to_zeros_is_named(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4)).eval()
    with torch.no_grad():
        module[3].weight.copy_(torch.full((4, 24), 1e-39))
    x = (torch.arange(40)[:, None, None, None].expand(40, 1, 4, 4) * 6).byte()
    data = Dataset.from_arrays(train=(x, torch.arange(40) % 4))
    with caplog.at_level("WARNING", "kondense"):
        stage.quantize(Model(module), data, QuantizeConfig())
    assert "all weights of '3' are rounded to zero" in caplog.text and "'1'" not in caplog.text


@pytest.mark.parametrize("method", ["static", "weight_only"])
def test_tiny_weights_before_a_norm_keep_the_function(method: str) -> None:
    torch.manual_seed(0)
    model = Model(Normed().eval(), f"{__name__}:Normed")
    with torch.no_grad():
        for parameter in model.module.first.parameters():
            parameter.mul_(2.0**-32)
    images = torch.randn(64, 1, 4, 4)
    quantized = static.quantize(model, [images]) if method == "static" else weight_only.quantize(model, bits=8)
    with torch.no_grad():
        expected, found = model.module(images), quantized.module(images)
    assert (found - expected).norm() < 0.03 * expected.norm()
