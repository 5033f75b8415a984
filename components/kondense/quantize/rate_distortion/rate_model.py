"""The cost of an integer in a kz file, and the integers with the least distortion plus cost.

A model of the codec's adaptive coder: the density of non-zeros by row, by column and next to each other, and the
frequency of each magnitude. Shapes: a weight [O, I, ...] is a matrix of R rows and C columns, a vector
one row.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kondense.codec.models import NEIGHBOUR_PRIOR
from kondense.codec.neighbours import DIRECTIONS, ONE_LINE

# As in kondense.codec.models: the densities of rows and columns start from the overall density.
ROW_PRIOR = 8.0  # weights' worth of average density
COLUMN_PRIOR = 16.0
LEAST_SHARE = 2.0**-12  # bound of the odds of a place, as in kondense.codec.streams
MOST_BITS = 12.0
LARGEST_SLOPE = 4.0  # bits per level if all magnitudes are 1
LIMIT = 127  # largest magnitude; integers are int8
LEVEL_PRIOR = 0.3  # prior count of each magnitude
TYPICAL_LEVEL = 5  # the slope of the cost is measured from level 1 to this one


@dataclasses.dataclass
class Rates:
    """Bits that a non-zero costs more than a zero: for its place, and for its sign and magnitude.

    Attributes:
        place: [R, C].
        level: [LIMIT + 1], by magnitude; the first is unused.
    """

    place: Tensor
    level: Tensor

    @property
    def slope(self) -> Tensor:
        """Bits per level at common magnitudes."""
        bits = self.level[TYPICAL_LEVEL] - self.level[1]
        return (bits / (TYPICAL_LEVEL - 1)).clamp(0.0, LARGEST_SLOPE)


def initial_rates(rows: int, columns: int) -> Rates:
    """Return prior rates: half of the weights are zero, and a level costs a bit."""
    return Rates(torch.zeros(rows, columns), (1.0 + torch.arange(LIMIT + 1)).clamp(max=MOST_BITS))


def measure_rates(integers_RC: Tensor, line: int = 0) -> Rates:
    """Return the rates of integers distributed like ``integers_RC``.

    The odds of a non-zero are those of its row times those of its column over the overall odds, times a factor for the
    number of adjacent non-zeros.

    Args:
        integers_RC: the integers.
        line: columns per line of the square images in a row, 0: none (see kondense.codec.neighbours).
    """
    magnitude_RC = integers_RC.abs()
    kept_RC = (magnitude_RC > 0).to(torch.float32)
    rows, columns = kept_RC.shape
    overall = ((kept_RC.sum() + 1) / (kept_RC.numel() + 2)).clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    share_R1 = (kept_RC.sum(1, keepdim=True) + ROW_PRIOR * overall) / (columns + ROW_PRIOR)
    share_1C = (kept_RC.sum(0, keepdim=True) + COLUMN_PRIOR * overall) / (rows + COLUMN_PRIOR)
    place_RC = _bits_against(share_R1) + (_bits_against(share_1C) - _bits_against(overall))
    if line:
        place_RC = place_RC - _neighbour_gain(kept_RC, place_RC, line)
    count_L = torch.bincount(magnitude_RC.reshape(-1).long(), minlength=LIMIT + 1).to(torch.float32) + LEVEL_PRIOR
    count_L[0] = 0.0
    level_L = (1 - torch.log2(count_L / count_L.sum())).clamp(max=MOST_BITS)
    return Rates(place_RC, level_L)


def _bits_against(share: Tensor) -> Tensor:
    """Return log2 of the odds against an event of probability ``share``."""
    bounded = share.clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    return torch.log2((1 - bounded) / bounded)


def _neighbour_gain(kept_RC: Tensor, place_RC: Tensor, line: int) -> Tensor:
    """Return log2 of the factor of each place's odds for its number of adjacent non-zeros, [R, C].

    Deviation from the codec, which knows only some of the neighbours: all four count, which treats places alike.
    """
    count_N = neighbours(kept_RC, line).reshape(-1).long()
    likely_N = torch.sigmoid(-math.log(2) * place_RC.reshape(-1))
    count_K = torch.bincount(count_N, kept_RC.reshape(-1), DIRECTIONS + 1)
    expected_K = torch.bincount(count_N, likely_N, DIRECTIONS + 1)
    gain_K = torch.log2((count_K + NEIGHBOUR_PRIOR) / (expected_K + NEIGHBOUR_PRIOR))
    return gain_K[count_N].reshape(kept_RC.shape)


def neighbours(values_RC: Tensor, line: int) -> Tensor:
    """Return the sum of the values above, below, left and right of each, in images of ``line`` by ``line`` columns."""
    rows, columns = values_RC.shape
    width, height = (columns, 1) if line == ONE_LINE else (line, line)
    images_RNHW = F.pad(values_RC, (0, -columns % (width * height))).reshape(rows, -1, height, width)
    sums_RNHW = torch.zeros_like(images_RNHW)
    sums_RNHW[..., 1:, :] += images_RNHW[..., :-1, :]
    sums_RNHW[..., :-1, :] += images_RNHW[..., 1:, :]
    sums_RNHW[..., 1:] += images_RNHW[..., :-1]
    sums_RNHW[..., :-1] += images_RNHW[..., 1:]
    return sums_RNHW.reshape(rows, -1)[:, :columns]


def nearest_levels(steps_RC: Tensor, rates: Rates, rate_weight: float) -> Tensor:
    """Return the best non-zero magnitude of each weight, at the typical cost of a level.

    Args:
        steps_RC: the weights in steps of the grid.
        rates: of the levels.
        rate_weight: squared steps that one bit is worth, at least 0.
    """
    # Level k + 1 beats k from k + 1/2 + rate_weight * slope / 2 on.
    return torch.floor(steps_RC.abs() + (0.5 - rate_weight * rates.slope / 2)).clamp_(1, LIMIT)


def worth_keeping(steps_RC: Tensor, levels_RC: Tensor, rates: Rates, rate_weight: float) -> Tensor:
    """Return where ``levels_RC`` is better than zero: the squared error it saves outweighs its bits."""
    saved_RC = 2 * steps_RC.abs() * levels_RC - levels_RC.square()
    # Never below 0: where most weights are non-zero, zeros would be expensive, and there would be none.
    place_RC = rates.place.clamp(0.0, MOST_BITS)
    return saved_RC > rate_weight * (place_RC + rates.level[levels_RC.long()])


def best_integers(steps_RC: Tensor, rates: Rates, rate_weight: float) -> Tensor:
    """Return the integers, as floats, with the least squared error plus ``rate_weight`` times bits.

    Source: rate-distortion optimised quantization as in Wiedemann et al. 2020 (DeepCABAC), equation 11.
    Deviation: rates are fixed while all weights are chosen at once, instead of updated after each.
    """
    levels_RC = nearest_levels(steps_RC, rates, rate_weight)
    kept_RC = worth_keeping(steps_RC, levels_RC, rates, rate_weight)
    return torch.copysign(levels_RC, steps_RC) * kept_RC + 0.0  # without -0.0
