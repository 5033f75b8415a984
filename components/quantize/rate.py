"""The price of an integer in a kz file, and the integers that weigh distortion against it.

A model of what the codec's adaptive coder will have learnt: where non-zeros lie by row and by column, and how their
magnitudes fall off. Shapes: a weight [O, I, ...] is a matrix of R rows and C columns, a vector one row.
"""

import dataclasses

import torch
from torch import Tensor

# As the codec learns them (codec_models): rows' and columns' shares start from the overall one.
ROW_PRIOR = 8.0  # weights' worth of average density
COLUMN_PRIOR = 16.0
LEAST_SHARE = 2.0**-12  # no place gets odds beyond this, as in codec_streams
DEAREST_BITS = 12.0
LARGEST_SLOPE = 4.0  # bits per level, where all magnitudes are 1


@dataclasses.dataclass
class Rates:
    """Bits that a non-zero costs more than a zero: row + column + sign and magnitude, base + slope (magnitude - 1).

    Attributes:
        row: [R, 1], the place's part by row; the column's is relative to the average.
        column: [1, C], by column.
        base: bits of the sign and the smallest magnitude.
        slope: bits of each level of magnitude more.
    """

    row: Tensor
    column: Tensor
    base: Tensor
    slope: Tensor


def initial_rates(rows: int, columns: int) -> Rates:
    """Return rates of which nothing is known: half of the weights are zero, and a level costs a bit."""
    return Rates(torch.zeros(rows, 1), torch.zeros(1, columns), torch.tensor(2.0), torch.tensor(1.0))


def measure_rates(integers_RC: Tensor) -> Rates:
    """Return what integers like ``integers_RC`` cost.

    Magnitudes are taken to fall off geometrically, places to be non-zero with the odds of their row times those of
    their column over those of all.
    """
    magnitude_RC = integers_RC.abs()
    kept_RC = (magnitude_RC > 0).to(torch.float32)
    rows, columns = kept_RC.shape
    overall = ((kept_RC.sum() + 1) / (kept_RC.numel() + 2)).clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    share_R1 = (kept_RC.sum(1, keepdim=True) + ROW_PRIOR * overall) / (columns + ROW_PRIOR)
    share_1C = (kept_RC.sum(0, keepdim=True) + COLUMN_PRIOR * overall) / (rows + COLUMN_PRIOR)
    mean = (magnitude_RC.sum() + 2.0) / (kept_RC.sum() + 1.0)  # one more of magnitude 2, so that it exceeds 1
    first = 1 / mean  # of the geometric distribution: share of the smallest magnitude
    return Rates(
        row=_bits_against(share_R1),
        column=_bits_against(share_1C) - _bits_against(overall),
        base=1 - torch.log2(first),
        slope=(-torch.log2(1 - first)).clamp(max=LARGEST_SLOPE),
    )


def _bits_against(share: Tensor) -> Tensor:
    """Return log2 of the odds against what happens with probability ``share``."""
    bounded = share.clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    return torch.log2((1 - bounded) / bounded)


def nearest_levels(steps_RC: Tensor, rates: Rates, rate_weight: float, limit: int) -> Tensor:
    """Return the best magnitude of each weight, if it is not to be zero: [1, limit].

    Args:
        steps_RC: the weights in steps of the grid.
        rates: what levels cost.
        rate_weight: squared steps that one bit is worth, at least 0.
        limit: largest magnitude.
    """
    # Level k + 1 beats k from k + 1/2 + rate_weight * slope / 2 on.
    return torch.floor(steps_RC.abs() + (0.5 - rate_weight * rates.slope / 2)).clamp_(1, limit)


def worth_keeping(steps_RC: Tensor, levels_RC: Tensor, rates: Rates, rate_weight: float) -> Tensor:
    """Return where ``levels_RC`` is better than zero: it saves more squared error than its bits are worth."""
    saved_RC = 2 * steps_RC.abs() * levels_RC - levels_RC.square()
    magnitude_RC = rates.base + rates.slope * (levels_RC - 1)
    # Never below 0: where most weights are not zero, zeros would be dear, and so none would come about.
    place_RC = (rates.row + rates.column).clamp(0.0, DEAREST_BITS)
    return saved_RC > rate_weight * (place_RC + magnitude_RC)


def best_integers(steps_RC: Tensor, rates: Rates, rate_weight: float, limit: int) -> Tensor:
    """Return the integers, as floats, with the least squared error plus ``rate_weight`` times bits.

    Source: rate-distortion optimised quantization as in Wiedemann et al. 2020 (DeepCABAC), equation 11.
    Deviation: rates are fixed while all weights are chosen at once, instead of updated after each.
    """
    levels_RC = nearest_levels(steps_RC, rates, rate_weight, limit)
    kept_RC = worth_keeping(steps_RC, levels_RC, rates, rate_weight)
    return torch.copysign(levels_RC, steps_RC) * kept_RC + 0.0  # without -0.0
