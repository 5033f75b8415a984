"""Confidence intervals of median times and of their ratios: block bootstrap, because neighbouring runs correlate.

Shapes: samples [T], one per turn, in order.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError

LEVEL = 0.95
BLOCKS = 40  # other load affects neighbouring turns; a block must be longer than its bursts
RESAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def median_interval(samples_T: NDArray[np.float64], rng: np.random.Generator) -> Interval:
    """Return the median of ``samples_T`` with its interval.

    Source: Carlstein 1986 (non-overlapping blocks). Deviation: the plain percentile interval.
    """
    blocks_BL = _blocks(samples_T)
    return _interval(float(np.median(samples_T)), _resampled_medians(blocks_BL, _draws(len(blocks_BL), rng)))


def ratio_interval(
    numerator_T: NDArray[np.float64], denominator_T: NDArray[np.float64], rng: np.random.Generator
) -> Interval:
    """Return the ratio of the medians of two models that were timed in the same turns, with its interval.

    Both are resampled together, so that a slow turn affects both.

    Raises:
        InputError: they were not timed in the same turns.
    """
    if len(numerator_T) != len(denominator_T):
        raise InputError(f"both must have {len(numerator_T)} turns, but got {len(denominator_T)}.")
    draws_RB = _draws(len(_blocks(numerator_T)), rng)
    above_R, below_R = (_resampled_medians(_blocks(one_T), draws_RB) for one_T in (numerator_T, denominator_T))
    return _interval(float(np.median(numerator_T) / np.median(denominator_T)), above_R / below_R)


def _blocks(samples_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [B, L] blocks of neighbouring turns; the first turns that do not fill a block are dropped."""
    count = min(BLOCKS, len(samples_T))
    length = len(samples_T) // count
    return samples_T[len(samples_T) - count * length :].reshape(count, length)


def _draws(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.integers(count, size=(RESAMPLES, count))


def _resampled_medians(blocks_BL: NDArray[np.float64], draws_RB: NDArray[np.int64]) -> NDArray[np.float64]:
    medians_R: NDArray[np.float64] = np.median(blocks_BL[draws_RB].reshape(len(draws_RB), -1), axis=1)
    return medians_R


def _interval(value: float, resampled_R: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))
