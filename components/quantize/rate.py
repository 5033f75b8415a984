"""The price of an integer in a kz file, and the integers that weigh distortion against it.

A model of what the codec's adaptive coder will have learnt: where non-zeros lie by row and by column, and how often
each magnitude comes. Shapes: a weight [O, I, ...] is a matrix of R rows and C columns, a vector one row.
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


LIMIT = 127  # largest magnitude; integers are int8
LEVEL_PRIOR = 0.3  # weights that every magnitude is taken to have had
TYPICAL_LEVEL = 5  # the slope of prices is that from 1 to here


@dataclasses.dataclass
class Rates:
    """Bits that a non-zero costs more than a zero: those of its row, its column, and its sign and magnitude.

    Attributes:
        row: [R, 1], the place's part by row; the column's is relative to the average.
        column: [1, C], by column.
        level: [LIMIT + 1], by magnitude; the first is never used.
    """

    row: Tensor
    column: Tensor
    level: Tensor

    @property
    def slope(self) -> Tensor:
        """Bits of a level more, where most magnitudes lie."""
        bits = self.level[TYPICAL_LEVEL] - self.level[1]
        return (bits / (TYPICAL_LEVEL - 1)).clamp(0.0, LARGEST_SLOPE)


def initial_rates(rows: int, columns: int) -> Rates:
    """Return rates of which nothing is known: half of the weights are zero, and a level costs a bit."""
    return Rates(torch.zeros(rows, 1), torch.zeros(1, columns), (1.0 + torch.arange(LIMIT + 1)).clamp(max=DEAREST_BITS))


def measure_rates(integers_RC: Tensor) -> Rates:
    """Return what integers like ``integers_RC`` cost.

    Places are taken to be non-zero with the odds of their row times those of their column over those of all.
    """
    magnitude_RC = integers_RC.abs()
    kept_RC = (magnitude_RC > 0).to(torch.float32)
    rows, columns = kept_RC.shape
    overall = ((kept_RC.sum() + 1) / (kept_RC.numel() + 2)).clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    share_R1 = (kept_RC.sum(1, keepdim=True) + ROW_PRIOR * overall) / (columns + ROW_PRIOR)
    share_1C = (kept_RC.sum(0, keepdim=True) + COLUMN_PRIOR * overall) / (rows + COLUMN_PRIOR)
    count_L = torch.bincount(magnitude_RC.reshape(-1).long(), minlength=LIMIT + 1).to(torch.float32) + LEVEL_PRIOR
    count_L[0] = 0.0
    level_L = (1 - torch.log2(count_L / count_L.sum())).clamp(max=DEAREST_BITS)
    return Rates(_bits_against(share_R1), _bits_against(share_1C) - _bits_against(overall), level_L)


def _bits_against(share: Tensor) -> Tensor:
    """Return log2 of the odds against what happens with probability ``share``."""
    bounded = share.clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    return torch.log2((1 - bounded) / bounded)


def nearest_levels(steps_RC: Tensor, rates: Rates, rate_weight: float) -> Tensor:
    """Return the best magnitude of each weight, if it is not to be zero and a level more costs what it typically does.

    Args:
        steps_RC: the weights in steps of the grid.
        rates: what levels cost.
        rate_weight: squared steps that one bit is worth, at least 0.
    """
    # Level k + 1 beats k from k + 1/2 + rate_weight * slope / 2 on.
    return torch.floor(steps_RC.abs() + (0.5 - rate_weight * rates.slope / 2)).clamp_(1, LIMIT)


def worth_keeping(steps_RC: Tensor, levels_RC: Tensor, rates: Rates, rate_weight: float) -> Tensor:
    """Return where ``levels_RC`` is better than zero: it saves more squared error than its bits are worth."""
    saved_RC = 2 * steps_RC.abs() * levels_RC - levels_RC.square()
    # Never below 0: where most weights are not zero, zeros would be dear, and so none would come about.
    place_RC = (rates.row + rates.column).clamp(0.0, DEAREST_BITS)
    return saved_RC > rate_weight * (place_RC + rates.level[levels_RC.long()])


def best_integers(steps_RC: Tensor, rates: Rates, rate_weight: float) -> Tensor:
    """Return the integers, as floats, with the least squared error plus ``rate_weight`` times bits.

    Source: rate-distortion optimised quantization as in Wiedemann et al. 2020 (DeepCABAC), equation 11.
    Deviation: rates are fixed while all weights are chosen at once, instead of updated after each.
    """
    levels_RC = nearest_levels(steps_RC, rates, rate_weight)
    kept_RC = worth_keeping(steps_RC, levels_RC, rates, rate_weight)
    return torch.copysign(levels_RC, steps_RC) * kept_RC + 0.0  # without -0.0
