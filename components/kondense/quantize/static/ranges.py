"""Calibration: the range of an activation's grid from its observed values.

Each calibration maps an observation to (low, high). ``entropy`` and ``mse`` search for the range of least cost one end
at a time, or both ends at once for a symmetric grid.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from kondense.artifacts.quantized import ActivationQuantizer
from kondense.quantize.grid import activation_quantizer, symmetric_quantizer
from kondense.quantize.static.observers import BINS, Observation

Array = NDArray[np.float64]
Cost = Callable[[Array, Array, ActivationQuantizer], float]
CANDIDATES = 120  # per end, between SHORTEST of the full range and all of it
SHORTEST = (
    1 / 16
)  # below it, a grid of 255 steps has fewer than two of BINS bins per step, which shows no rounding error
ROUNDS = 2
EMPTY = 1e-4  # count of an empty level that clipped values fall on


def calibrate(
    observation: Observation, calibration: str, *, percentile: float = 99.99, symmetric: bool = False
) -> ActivationQuantizer:
    """Return the grid of the observed values.

    Args:
        observation: the values.
        calibration: one of CALIBRATIONS.
        percentile: share of the values that ``percentile`` keeps, %.
        symmetric: whether the grid has zero in its middle.
    """
    make = symmetric_quantizer if symmetric else activation_quantizer
    if calibration == "percentile":
        return make(*percentile_range(observation, percentile))
    if calibration in COSTS and observation.counts.sum():
        return make(*_least_cost(observation, COSTS[calibration], make, symmetric=symmetric))
    return make(*minmax_range(observation))


def minmax_range(observation: Observation) -> tuple[float, float]:
    """Return minimum and maximum."""
    return observation.low, observation.high


def percentile_range(observation: Observation, percentile: float) -> tuple[float, float]:
    """Return the range that excludes (100 - percentile) % of the values, half of them on each side."""
    total = int(observation.counts.sum())
    if not total:
        return observation.low, observation.high
    outside = total * (1 - percentile / 100) / 2
    below = observation.counts.cumsum(0)
    first = int(torch.searchsorted(below.double(), torch.tensor(outside, dtype=torch.float64), right=True))
    last = int(torch.searchsorted(below.double(), torch.tensor(total - outside, dtype=torch.float64)))
    width = (observation.high - observation.low) / BINS
    return observation.low + min(first, BINS - 1) * width, observation.low + (min(last, BINS - 1) + 1) * width


def squared_error(centres: Array, counts: Array, quantizer: ActivationQuantizer) -> float:
    """Return the sum of squared errors of ``counts`` values at ``centres``."""
    values = (_levels(centres, quantizer) - quantizer.zero_point) * quantizer.scale
    return float((counts * (values - centres) ** 2).sum())


def divergence(centres: Array, counts: Array, quantizer: ActivationQuantizer) -> float:
    """Return the Kullback-Leibler divergence of the values on the grid from the values clipped to its range.

    The distribution on the grid spreads the values of a level evenly over the bins of that level. It contains only the
    values inside the range, whereas the reference has the clipped values at its ends, so that clipping costs.

    Source: Migacz 2017, "8-bit inference with TensorRT". Deviations: bins over the levels of the actual grid, so
    that asymmetric grids work too; zeros, which are many and exactly on the grid, count as much as their neighbours, as
    in NVIDIA's pytorch-quantization.
    """
    counts = _without_zeros(centres, counts)
    low, high = (bound * quantizer.scale for bound in _bounds(quantizer))
    inside = (centres >= low) & (centres <= high)
    if not counts[inside].sum():
        return float("inf")
    clipped = np.where(inside, counts, 0.0)
    first, last = np.flatnonzero(inside)[[0, -1]]
    reference = clipped.copy()
    reference[first] += counts[:first].sum()
    reference[last] += counts[last + 1 :].sum()
    levels = _levels(centres, quantizer).astype(np.int64)
    occupied = reference > 0
    size = 2**quantizer.bits
    mass = np.bincount(levels, weights=clipped, minlength=size)
    bins = np.bincount(levels, weights=occupied, minlength=size)
    spread = np.maximum(mass[levels[occupied]] / bins[levels[occupied]], EMPTY)
    p, q = reference[occupied] / reference.sum(), spread / spread.sum()
    return float((p * np.log(p / q)).sum())


COSTS: dict[str, Cost] = {"entropy": divergence, "mse": squared_error}
CALIBRATIONS = ("minmax", "percentile", *COSTS)


def _least_cost(
    observation: Observation,
    cost: Cost,
    make: Callable[[float, float], ActivationQuantizer],
    *,
    symmetric: bool,
) -> tuple[float, float]:
    counts = observation.counts.double().numpy()
    edges = np.linspace(observation.low, observation.high, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    zero = int(np.searchsorted(edges, 0.0, side="right")) - 1
    if 0 <= zero < BINS:
        centres[zero] = 0.0  # most values there are exact zeros, which are on every grid

    def costs(low: float, high: float) -> float:
        return cost(centres, counts, make(low, high))

    low, high = min(observation.low, 0.0), max(observation.high, 0.0)
    if symmetric:
        bound = min(_ends(max(-low, high)), key=lambda end: costs(-end, end))
        return -bound, bound
    for _ in range(ROUNDS if low and high else 1):
        high = min(_ends(max(observation.high, 0.0)), key=lambda end: costs(low, end))
        low = min(_ends(min(observation.low, 0.0)), key=lambda end: costs(end, high))
    return low, high


def _ends(full: float) -> Iterator[float]:
    """Yield the candidate ends, the full one first, so that it wins ties."""
    return iter((full * np.linspace(1.0, SHORTEST, CANDIDATES)).tolist() if full else [0.0])


def _bounds(quantizer: ActivationQuantizer) -> tuple[float, float]:
    return -quantizer.zero_point - 0.5, 2**quantizer.bits - 1 - quantizer.zero_point + 0.5


def _levels(centres: Array, quantizer: ActivationQuantizer) -> Array:
    levels = np.round(centres / quantizer.scale) + quantizer.zero_point
    clipped: Array = np.clip(levels, 0, 2**quantizer.bits - 1)
    return clipped


def _without_zeros(centres: Array, counts: Array) -> Array:
    place = np.flatnonzero(centres == 0.0)
    if len(place) and len(counts) > 2:
        counts = counts.copy()
        neighbours = [counts[index] for index in (place[0] - 1, place[0] + 1) if 0 <= index < len(counts)]
        counts[place[0]] = min(counts[place[0]], max(neighbours))
    return counts
