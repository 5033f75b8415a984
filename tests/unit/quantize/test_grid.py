"""Integer grids follow the scale of what they hold, however small it is."""

import pytest
import torch
from kondense.artifacts.model import Model
from kondense.quantize import weight_only
from kondense.quantize.grid import (
    SCALE_OF_ZEROS,
    SMALLEST_SCALE,
    activation_quantizer,
    largest_scale,
    round_to_grid,
    symmetric_quantizer,
)
from kondense.quantize.static import static
from torch import Tensor, nn

FACTORS = (2.0**-17, 2.0**-30, 2.0**-50)  # exact in float32


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
    assert torch.tensor(SMALLEST_SCALE**2).float() >= torch.finfo(torch.float32).tiny


class Normed(nn.Module):
    """A layer whose weights may be tiny, since a norm follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(16, 24), nn.LayerNorm(24, eps=0.0)
        self.last = nn.Linear(24, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.norm(self.first(images.flatten(1))))


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
