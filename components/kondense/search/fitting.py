"""Hyperparameters of a Gaussian process by the gradient of its evidence.

Legend: N observations, D parameters, L levels.

Sources: Rasmussen and Williams 2006, section 5.4 (gradient); Riedmiller and Braun 1993 (Rprop).
"""

import math

import numpy as np
from numpy.typing import NDArray

from kondense.search.kernel import JITTER, LINKS, OFFSET, Array, Data, Shape

MOST = 64  # observations of a fit, drawn at random; its cost grows with their cube
LENGTH_SPREAD = 0.8  # standard deviation of the logarithm of a length scale a priori
TREND, TREND_SPREAD = -1.0, 1.5  # of the logarithm of the trend's variance
OWN, OWN_SPREAD = -4.0, 1.5  # of the logarithm of the variance of a configuration's own part
NOISE, NOISE_GROWTH, NOISE_SPREAD = -4.0, 0.8, 2.0  # of the logarithm of the noise's variance; the growth is per gap
STEPS = 10
FIRST_STEP = 0.4
LARGEST_STEP = 1.0
LINK = LINKS[2]  # of all neighbouring levels during the fit


def climb(data: Data, rng: np.random.Generator) -> Shape:
    """Return likely hyperparameters: steps by the signs of the gradient, with every link at its prior's middle."""
    levels = int(data.gaps.max()) + 1
    fit = Evidence(_some(data, rng), levels)
    count = len(fit.squares)
    length = math.log(0.35 * math.sqrt(data.dimensions))
    centre = np.array([length] * count + [TREND, OWN] + [NOISE + NOISE_GROWTH * gap for gap in range(levels)])
    spread = np.array([LENGTH_SPREAD] * count + [TREND_SPREAD, OWN_SPREAD] + [NOISE_SPREAD] * levels)
    place, step, before = centre.copy(), np.full(len(centre), FIRST_STEP), np.zeros(len(centre))
    for _ in range(STEPS):
        slope = fit.slope(place) - (place - centre) / spread**2
        step *= np.where(slope * before > 0, 1.3, np.where(slope * before < 0, 0.5, 1.0))
        place += np.sign(slope) * np.minimum(step, LARGEST_STEP)
        before = slope
    (*lengths, trend, own), noise = place[: count + 2].tolist(), place[count + 2 :].tolist()
    return Shape(tuple(lengths), trend, own, tuple(noise), (LINK,) * (levels - 1))


class Evidence:
    """The evidence of observations as a function of lengths, trend, own part and noise.

    Args:
        data: the observations.
        levels: L.
    """

    def __init__(self, data: Data, levels: int) -> None:
        self.data, self.levels = data, levels
        self.squares = data.encoding.squares.reshape(len(data.encoding.firsts), -1)
        self.products = data.encoding.trend @ data.encoding.trend.T
        self.same = self.squares.sum(axis=0).reshape(self.products.shape) == 0
        apart = np.abs(data.gaps[:, np.newaxis] - data.gaps)
        self.worth, self.offsets = LINK**apart, OFFSET * (apart == 0)

    def slope(self, place: Array) -> Array:
        """Return the gradient at `place`: lengths [D], trend, own, noise [L], all logarithms as in `Shape`."""
        data, count = self.data, len(self.squares)
        scales, slope, own = np.exp(-2 * place[:count]), math.exp(place[count]), math.exp(place[count + 1])
        scaled = np.sqrt(5 * (scales @ self.squares)).reshape(self.worth.shape)
        decay = np.exp(-scaled)
        noise = np.exp(place[count + 2 :])[data.gaps]
        smooth = (1 + scaled + scaled * scaled / 3) * decay + slope * self.products + own * self.same
        matrix = self.worth * smooth + self.offsets
        matrix.flat[:: len(noise) + 1] += noise + JITTER
        inverse = np.linalg.inv(matrix)
        solved = inverse @ data.targets
        fit = float(data.targets @ solved)
        change = np.outer((len(noise) / 2 + 1) / (1 + fit / 2) * solved, solved) - inverse
        by_noise = np.bincount(data.gaps, np.diagonal(change) * noise / 2, self.levels)
        change *= self.worth
        by_trend = slope / 2 * float((change * self.products).sum())
        by_own = own / 2 * float(change[self.same].sum())
        change *= (1 + scaled) * decay
        by_length = 5 / 6 * scales * (self.squares @ change.ravel())
        return np.array([*by_length, by_trend, by_own, *by_noise])


def _some(data: Data, rng: np.random.Generator) -> Data:
    """Return at most MOST of the observations."""
    count = len(data.gaps)
    if count <= MOST:
        return data
    index: NDArray[np.int64] = rng.choice(count, MOST, replace=False)
    return Data(data.encoding.take(index), data.gaps[index], data.targets[index], data.dimensions)
