"""Kernel densities over mixed spaces.

Legend: N observations, C candidates, D parameters; rows are unit-cube coordinates.

Source: Falkner et al., BOHB, ICML 2018, section 4.1 and Algorithm 2. Deviations: the kernels of ordered parameters
are truncated at the ends of [0, 1] and scaled to mass 1, so that the density does not drop there; the bandwidth of a
categorical shrinks with the observations and never makes a value impossible.
"""

import math

import numpy as np
from numpy.typing import NDArray

from kondense.search.space import SearchSpace

Array = NDArray[np.float64]

_error_function = np.vectorize(math.erf, otypes=[np.float64])


class Density:
    """A product-kernel density estimate.

    Ordered parameters have normal kernels with the normal reference rule's bandwidth; categoricals have the kernel of
    Aitchison and Aitken: weight 1 - b on the observed value, b spread over the others.

    Attributes:
        rows: the observations, [N, D].
        bandwidths: of each parameter, [D].
    """

    def __init__(self, space: SearchSpace, rows: Array, min_bandwidth: float = 1e-3) -> None:
        """Fit the bandwidths to `rows` [N, D], N >= 1."""
        self.rows = rows
        self.levels = np.array([0 if p.ordered else len(p.values) for p in space.parameters])
        count, dimensions = rows.shape
        spread = 1.06 * rows.std(axis=0) * count ** (-1 / (4 + dimensions))
        ceiling = np.where(self.levels > 0, (self.levels - 1) / np.maximum(self.levels, 1), np.inf)
        smooth = np.where(self.levels > 0, (self.levels - 1) / (self.levels + count), min_bandwidth)
        self.bandwidths: Array = np.minimum(
            np.where(self.levels > 0, smooth, np.maximum(spread, min_bandwidth)), ceiling
        )

    def log_density(self, candidates: Array) -> Array:
        """Return the log density at rows [C, D], as [C]."""
        total = np.zeros((len(candidates), len(self.rows)))
        for column, levels in enumerate(self.levels):
            x, centre = candidates[:, column, np.newaxis], self.rows[:, column]
            total += self._log_unordered(x, centre, column) if levels else self._log_normal(x, centre, column)
        peak = total.max(axis=1)
        return np.asarray(peak + np.log(np.exp(total - peak[:, np.newaxis]).mean(axis=1)), dtype=np.float64)

    def _log_normal(self, x: Array, centre: Array, column: int) -> Array:
        width = self.bandwidths[column]
        mass = (
            _error_function((1 - centre) / (width * math.sqrt(2))) + _error_function(centre / (width * math.sqrt(2)))
        ) / 2
        return -0.5 * ((x - centre) / width) ** 2 - np.log(width * math.sqrt(2 * math.pi) * mass)

    def _log_unordered(self, x: Array, centre: Array, column: int) -> Array:
        levels, width = int(self.levels[column]), self.bandwidths[column]
        if levels == 1:
            return np.zeros((len(x), len(centre)))
        same = np.minimum((x * levels).astype(int), levels - 1) == np.minimum((centre * levels).astype(int), levels - 1)
        return np.where(same, math.log(1 - width), math.log(width / (levels - 1)))

    def sample(self, rng: np.random.Generator, count: int, bandwidth_factor: float) -> Array:
        """Draw rows [count, D] with the bandwidths of ordered parameters widened by `bandwidth_factor`."""
        rows = self.rows[rng.integers(len(self.rows), size=count)]
        steps = rng.standard_normal(rows.shape) * self.bandwidths * bandwidth_factor
        moved = np.abs(rows + steps) % 2  # reflected at both ends
        moved = np.where(moved > 1, 2 - moved, moved)
        anywhere = rng.random(rows.shape)
        chance = self.bandwidths * self.levels / np.maximum(self.levels - 1, 1)  # of a draw from all values
        redrawn = np.where(rng.random(rows.shape) < chance, anywhere, rows)
        return np.where(self.levels > 0, redrawn, moved)
