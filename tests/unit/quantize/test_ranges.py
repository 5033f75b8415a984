"""Calibrations against brute force, torch's observers and the properties that they are chosen for."""

import numpy as np
import pytest
import torch
from kondense.artifacts.quantized import ActivationQuantizer
from kondense.quantize.grid import symmetric_quantizer
from kondense.quantize.static.observers import Observation, in_memory_order, observe
from kondense.quantize.static.ranges import CALIBRATIONS, calibrate, divergence
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver


def observed(values: Tensor) -> Observation:
    return observe(nn.Identity(), [""], [values])[""]


def rounding_error(values: Tensor, quantizer: ActivationQuantizer) -> float:
    (rounded,) = quantizer(nn.Identity(), (values,))
    return float((rounded - values).double().square().mean())


def normal(count: int = 100_000) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def heavy_tailed() -> Tensor:
    return torch.cat([normal(), 60 * normal(20)])


OUTLIER = torch.cat([normal(300_000), torch.tensor([9.0])])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("values", [OUTLIER, OUTLIER.relu(), 0.5 - OUTLIER], ids=["both", "positive", "shifted"])
def test_mse_finds_nearly_the_least_error_of_all_ranges(values: Tensor, symmetric: bool) -> None:
    found = calibrate(observed(values), "mse", symmetric=symmetric)
    extremes = calibrate(observed(values), "minmax", symmetric=symmetric)
    low, high = float(values.min().clamp(max=0)), float(values.max().clamp(min=0))
    best = rounding_error(values, extremes)
    for lower in np.linspace(0.3, 1, 15) if low and not symmetric else [1.0]:
        for upper in np.linspace(0.3, 1, 15):
            if symmetric:
                tried = symmetric_quantizer(low * upper, high * upper)
            else:
                scale = (high * upper - low * lower) / 255
                tried = ActivationQuantizer(scale, int(np.clip(round(-low * lower / scale), 0, 255)))
            best = min(best, rounding_error(values, tried))
    assert rounding_error(values, found) <= 1.05 * best
    assert low == 0 or rounding_error(values, found) < 0.8 * rounding_error(values, extremes)


def test_divergence_by_hand() -> None:
    """Two levels and a clipped tail: the reference piles the tail up at the end, the grid does not know it."""
    quantizer = ActivationQuantizer(scale=2.0, zero_point=0, bits=2)  # levels 0, 2, 4, 6 between -1 and 7
    centres = np.array([1.5, 2.5, 3.5, 4.5, 9.0])
    counts = np.array([1.0, 3.0, 2.0, 2.0, 4.0])
    reference = np.array([1.0, 3.0, 2.0, 6.0]) / 12
    grid = np.array([2.0, 2.0, 2.0, 2.0]) / 8  # levels 2 (1.5, 2.5) and 4 (3.5, 4.5) spread their mass evenly
    assert divergence(centres, counts, quantizer) == pytest.approx(float((reference * np.log(reference / grid)).sum()))


def test_entropy_clips_outliers_and_keeps_what_is_dense() -> None:
    tail = calibrate(observed(heavy_tailed().relu()), "entropy")
    assert 3.0 < tail.scale * 255 < 0.5 * float(heavy_tailed().max())
    uniform = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    assert calibrate(observed(uniform), "entropy").scale * 255 > 0.97


def test_entropy_is_not_minmax() -> None:
    """With as many bins as levels nothing would ever be gained by clipping."""
    values = heavy_tailed().relu()
    assert calibrate(observed(values), "entropy") != calibrate(observed(values), "minmax")


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "values", [torch.zeros(10), torch.full((10,), 3.0), torch.full((10,), -3.0), torch.tensor([-1.0, 2.0])]
)
def test_few_values_are_kept(calibration: str, symmetric: bool, values: Tensor) -> None:
    quantizer = calibrate(observed(values), calibration, percentile=100.0, symmetric=symmetric)
    (rounded,) = quantizer(nn.Identity(), (values,))
    torch.testing.assert_close(rounded, values, atol=0.51 * quantizer.scale, rtol=0)
    assert not symmetric or quantizer.zero_point == 128


def test_the_symmetric_grid_is_that_of_torchs_observer() -> None:
    values = torch.linspace(-1.7, 3.1, 100)
    observer = MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_symmetric)
    observer(values)
    scale, zero_point = observer.calculate_qparams()
    found = symmetric_quantizer(-1.7, 3.1)
    torch.testing.assert_close(torch.tensor([found.scale]), scale.reshape(1), rtol=0, atol=0)
    assert found.zero_point == int(zero_point)


class Viewing(nn.Conv2d):
    """A convolution whose weight is seen in another shape, which only a contiguous one has."""

    def forward(self, images: Tensor) -> Tensor:
        weight = self.weight.view(self.out_channels, -1)
        return self._conv_forward(images, (weight - weight.mean(1, keepdim=True)).view_as(self.weight), self.bias)


class Format(nn.Identity):
    """Notes the memory format of what passes."""

    def forward(self, images: Tensor) -> Tensor:
        self.last = images.is_contiguous(memory_format=torch.channels_last)
        return images


@pytest.mark.parametrize(
    ("layer", "side", "last"), [(nn.Conv2d, 80, True), (nn.Conv2d, 20, False), (Viewing, 80, False)]
)
def test_large_images_are_observed_in_the_faster_format_that_the_network_takes(
    layer: type[nn.Conv2d], side: int, last: bool
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(layer(3, 8, 3), nn.ReLU(), Format(), nn.Conv2d(8, 4, 3)).eval()
    images = torch.randn(3, 3, side, side)
    found = observe(module, ["0", "3"], [images])
    assert module[2].last is last
    assert all(parameter.is_contiguous() for parameter in module.parameters())
    inner = module[:3](images)
    assert (found["0"].low, found["0"].high) == (float(images.min()), float(images.max()))
    assert (found["3"].low, found["3"].high) == pytest.approx((0.0, float(inner.max())), rel=1e-6)
    assert [int(each.counts.sum()) for each in found.values()] == [images.numel(), inner.numel()]


def test_values_in_channels_last_are_read_where_they_lie() -> None:
    """torch reads a copy of them otherwise, which took as long as the network itself."""
    values = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    flat = in_memory_order(values)
    assert flat.is_contiguous()
    assert flat.data_ptr() == values.data_ptr()
    assert torch.equal(flat.sort().values, values.flatten().sort().values)
    for other in (torch.randn(2, 3, 4, 5), torch.randn(2, 7)):
        assert in_memory_order(other) is other
