import numpy as np
import pytest
import torch
from kondense.codec.integers import encode_integers
from kondense.quantize.rate_distortion.rate_model import (
    best_integers,
    initial_rates,
    measure_rates,
    nearest_levels,
    neighbours,
)
from torch import nn


def cost(integers, steps, rates, weight):
    """Return squared error plus priced bits of every element."""
    magnitude = integers.abs()
    bits = rates.place.clamp(0.0, 12.0) + rates.level[magnitude.long()]
    return (steps - integers) ** 2 + torch.where(magnitude > 0, weight * bits, torch.zeros(()))


def sparse_integers(rows, columns, density, seed=0):
    generator = torch.Generator().manual_seed(seed)
    row_R1 = torch.rand(rows, 1, generator=generator).square() * 3
    column_1C = torch.rand(1, columns, generator=generator).square() * 3
    kept_RC = torch.rand(rows, columns, generator=generator) < density * row_R1 * column_1C
    return (torch.randn(rows, columns, generator=generator) * 2).round() * kept_RC


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 1.0])
def test_no_integer_is_better(weight):
    rates = measure_rates(sparse_integers(20, 30, 0.2))
    rates.level = 2.0 + 0.7 * torch.arange(128.0)
    steps = torch.randn(20, 30, generator=torch.Generator().manual_seed(1)) * 3
    chosen = best_integers(steps, rates, weight)
    candidates = torch.arange(-15.0, 16.0).reshape(-1, 1, 1).expand(-1, 20, 30)
    least = cost(candidates, steps, rates, weight).min(0).values
    assert torch.allclose(cost(chosen, steps, rates, weight), least, atol=1e-5)


def test_a_weight_is_zero_only_where_that_is_better():
    rates = measure_rates(sparse_integers(20, 30, 0.2))
    steps = torch.randn(20, 30, generator=torch.Generator().manual_seed(1)) * 3
    chosen = best_integers(steps, rates, 0.4)
    levels = torch.copysign(nearest_levels(steps, rates, 0.4), steps)
    expected = torch.minimum(cost(levels, steps, rates, 0.4), steps**2)
    assert torch.allclose(cost(chosen, steps, rates, 0.4), expected)
    assert 0 < int((chosen == 0).sum()) < 600


def test_where_bits_are_free_the_nearest_integer_is_taken():
    steps = torch.randn(8, 8, generator=torch.Generator().manual_seed(1)) * 3
    assert torch.equal(best_integers(steps, initial_rates(8, 8), 0.0), steps.round())


def test_a_full_matrix_does_not_make_zeros_dear():
    full = measure_rates(torch.full((8, 8), 5.0))
    assert (best_integers(torch.full((8, 8), 0.4), full, 0.5) == 0).all()


def test_a_higher_price_gives_smaller_integers():
    steps = torch.randn(50, 50, generator=torch.Generator().manual_seed(2)) * 2
    magnitudes = [best_integers(steps, initial_rates(50, 50), weight).abs() for weight in (0.0, 0.2, 1.0)]
    assert (magnitudes[0] >= magnitudes[1]).all() and (magnitudes[1] >= magnitudes[2]).all()
    assert float(magnitudes[0].sum()) > float(magnitudes[2].sum()) > 0


@pytest.mark.parametrize("density", [0.02, 0.1, 0.4])
def test_the_price_is_about_that_of_the_codec(density):
    integers = sparse_integers(300, 400, density)
    rates = measure_rates(integers)
    magnitude = integers.abs()
    kept = magnitude > 0
    against = rates.place  # log2 of the odds against a non-zero
    places = torch.where(kept, torch.log2(1 + 2**against), torch.log2(1 + 2**-against))
    levels = torch.where(kept, rates.level[magnitude.long()], torch.zeros(()))
    stored = 8 * len(encode_integers(integers.numpy().astype(np.int16)))
    assert float((places + levels).sum()) == pytest.approx(stored, rel=0.12)


def test_fuller_rows_and_columns_are_cheaper():
    integers = torch.zeros(10, 10)
    integers[0] = 1.0
    integers[:, 3] = 1.0
    place = measure_rates(integers).place
    assert place.mean(1).argmin() == 0 and place.mean(0).argmin() == 3


def test_places_between_non_zeros_are_cheaper_where_non_zeros_cluster():
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(200, 1, 8, 8, generator=generator) < 0.04
    clusters = nn.functional.max_pool2d(centre.float(), 3, 1, 1).reshape(200, 64)
    apart, together = measure_rates(clusters).place, measure_rates(clusters, 8).place
    around = neighbours(clusters, 8)
    assert together[around == 4].mean() < apart[around == 4].mean() - 1.0
    assert together[around == 0].mean() > apart[around == 0].mean() + 1.0


@pytest.mark.parametrize(("shape", "line"), [((3, 18), 3), ((2, 16), 4), ((2, 7), 1), ((3, 20), 3), ((2, 5), 4)])
def test_neighbours_are_those_of_a_convolution_with_a_cross(shape, line):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    rows, columns = shape
    height, width = (1, columns) if line == 1 else (line, line)
    padded = nn.functional.pad(values, (0, -columns % (height * width)))
    cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).reshape(1, 1, 3, 3)
    expected = nn.functional.conv2d(padded.reshape(-1, 1, height, width), cross, padding=1)
    assert torch.allclose(neighbours(values, line), expected.reshape(rows, -1)[:, :columns], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, -127.0])
def test_rates_of_one_value_are_finite(value):
    rates = measure_rates(torch.full((4, 5), value))
    assert all(torch.isfinite(tensor).all() for tensor in vars(rates).values())
