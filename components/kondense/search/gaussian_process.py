"""A Gaussian process over configurations and rungs, and functions sampled from its posterior.

Legend: N observations, C candidates, A axes (coordinates; one per value of a categorical), T trend columns,
K random features, L levels. The target at configuration x and level l is

    f_l(x) + offset_l + noise_l,
    cov(f_k(x), f_l(y)) = links between k and l * (matern(x, y) + trend * x' y + own * [x = y])

where own is the variance of what a configuration does not share with its neighbours, a link is the correlation of two
neighbouring levels, and the links between k and l are multiplied. The evidence shows which levels say little about the
full resource; these are ignored.

Sources: Rasmussen and Williams 2006, chapters 2 and 5 (evidence); Rahimi and Recht 2007 (random features);
Wilson et al. 2020, "Efficiently sampling functions from Gaussian process posteriors" (the draw's update).
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kondense.search.fitting import climb
from kondense.search.kernel import (
    JITTER,
    LINKS,
    OFFSET,
    Array,
    Data,
    Encoding,
    Shape,
    axis_scales,
    matern,
    near_covariance,
)

RANDOM_FEATURES = 96
COLD = 0.25  # temperature of a draw that exploits
COLD_SHARE = 0.5  # of the draws
MATERN_FREEDOM = 5  # Matern 5/2: its spectral density is a Student t of 5 degrees of freedom


class Process:
    """The process with hyperparameters sampled approximately from their posterior.

    Attributes:
        shape: the hyperparameters.
    """

    def __init__(self, data: Data, rng: np.random.Generator, averaged: bool = False) -> None:
        """Fit: search for likely hyperparameters, then sample the links from their posterior given the others.

        Args:
            data: the observations.
            rng: source of randomness.
            averaged: take each link's mean instead of a sample.
        """
        self.data = data
        trend, count = data.encoding.trend, len(data.gaps)
        self._squares = data.encoding.squares.reshape(-1, count * count)
        self._products = trend @ trend.T
        self._pairs = (data.gaps[:, np.newaxis] * (int(data.gaps.max()) + 1) + data.gaps).ravel()
        self._offsets = OFFSET * (data.gaps[:, np.newaxis] == data.gaps)
        self._same = self._squares.sum(axis=0).reshape(count, count) == 0
        self.shape = self._draw_links(climb(data, rng), None if averaged else rng)

    def _draw_links(self, shape: Shape, rng: np.random.Generator | None) -> Shape:
        """Sample each link given the others, or average it; links to levels without data share one of the prior."""
        present = set(self.data.gaps.tolist())
        shared = _one_of(LINKS, np.ones(len(LINKS)), rng)
        known = [gap in present and gap + 1 in present for gap in range(len(shape.links))]
        links = [link if observed else shared for link, observed in zip(shape.links, known, strict=True)]
        smooth = self._smooth(shape)
        for gap in np.flatnonzero(known)[::-1]:
            choices = [replace(shape, links=(*links[:gap], link, *links[gap + 1 :])) for link in LINKS]
            evidence = self.evidence(choices, smooth)
            links[gap] = _one_of(LINKS, np.exp(evidence - evidence.max()), rng)
        return replace(shape, links=tuple(links))

    def _smooth(self, shape: Shape) -> Array:
        """Return the covariance of f within a level, [N, N]."""
        scales = np.exp(-2 * np.array(shape.lengths))
        near = matern(np.sqrt(5 * (scales @ self._squares)).reshape(self._products.shape))
        return near + math.exp(shape.trend) * self._products + math.exp(shape.own) * self._same

    def covariance(self, shape: Shape, smooth: Array) -> Array:
        """Return the covariance of the targets, [N, N], relative to the variance of f."""
        matrix: Array = self._covariances([shape], smooth)[0]
        return matrix

    def _covariances(self, shapes: list[Shape], smooth: Array) -> Array:
        """Return the covariance of the targets for each shape, [S, N, N]; `smooth` is [N, N] or [S, N, N]."""
        count = len(self.data.gaps)
        worth = np.array([shape.worth() for shape in shapes])
        ratio = worth[:, :, np.newaxis] / worth[:, np.newaxis]
        between = np.minimum(ratio, 1 / ratio).reshape(len(shapes), -1)
        matrix = between[:, self._pairs].reshape(len(shapes), count, count)
        matrix *= smooth
        matrix += self._offsets
        noise = np.exp(np.array([shape.noise for shape in shapes]))
        matrix.reshape(len(shapes), -1)[:, :: count + 1] += noise[:, self.data.gaps] + JITTER
        return matrix

    def evidence(self, shapes: list[Shape], smooth: Array) -> Array:
        """Return the log likelihood of the targets, the variance of f integrated out (inverse gamma prior (1, 1)).

        Args:
            shapes: hyperparameters, [S].
            smooth: covariance of f within a level, [N, N] or one for each shape.

        Returns:
            One for each shape, [S].
        """
        targets = self.data.targets
        count = len(targets)
        # With the targets as the last row and column, the Cholesky factor L ends with the row L^-1 targets.
        bordered = np.empty((len(shapes), count + 1, count + 1))
        bordered[:, :count, :count] = self._covariances(shapes, smooth)
        bordered[:, count, :count] = targets
        bordered[:, count, count] = 1 + 2 * float(targets @ targets) / JITTER
        factor = np.linalg.cholesky(bordered)
        half_log_determinant = np.log(np.diagonal(factor, axis1=1, axis2=2)[:, :count]).sum(axis=1)
        fit = (factor[:, count, :count] ** 2).sum(axis=1)
        likelihood: Array = -(count / 2 + 1) * np.log1p(fit / 2) - half_log_determinant
        return likelihood

    def information(self, gap: int = 0) -> float:
        """Return the number of observations, weighted by their squared correlation with the level `gap`."""
        return float((self._correlations(gap)[self.data.gaps] ** 2).sum())

    def _correlations(self, gap: int) -> Array:
        """Return the correlation of each level with the level `gap`, [L]."""
        worth = self.shape.worth()
        return np.minimum(worth / worth[gap], worth[gap] / worth)

    def posterior(self, gap: int = 0) -> Callable[[Encoding], tuple[Array, Array]]:
        """Return mean and standard deviation of f at the level `gap`: encoded candidates -> ([C], [C])."""
        data, shape = self.data, self.shape
        matrix = self.covariance(shape, self._smooth(shape))
        weights = np.linalg.solve(matrix, data.targets)
        variance = (1 + float(data.targets @ weights) / 2) / (len(data.targets) / 2 + 1)
        worth = self._correlations(gap)[data.gaps]

        def function(candidates: Encoding) -> tuple[Array, Array]:
            slope = math.exp(shape.trend)
            near = near_covariance(candidates, data.encoding, shape)
            near = (near + slope * candidates.trend @ data.encoding.trend.T) * worth
            own = 1 + math.exp(shape.own) + slope * (candidates.trend**2).sum(axis=1)
            left = own - (near * np.linalg.solve(matrix, near.T).T).sum(axis=1)
            return near @ weights, np.sqrt(variance * np.maximum(left, JITTER))

        return function

    def draw(self, rng: np.random.Generator, gap: int = 0, temperature: float = 1.0) -> Callable[[Encoding], Array]:
        """Return a function sampled from the posterior at the level `gap`: encoded candidates -> values [C].

        Args:
            rng: source of randomness.
            gap: levels below the full resource.
            temperature: factor of the deviation from the posterior's mean.
        """
        data, shape = self.data, self.shape
        features = _random_features(data.encoding, shape, rng)
        weights = self._prior_weights(RANDOM_FEATURES + data.encoding.trend.shape[1], rng)
        depth = len(weights)
        matrix = self.covariance(shape, self._smooth(shape))
        fit = float(data.targets @ np.linalg.solve(matrix, data.targets))
        deviation = math.sqrt((1 + fit / 2) / (len(data.targets) / 2 + 1))
        weights *= temperature
        prior = (features(data.encoding) * weights[data.gaps]).sum(axis=1)
        prior += temperature * self._own_parts(rng)
        prior += temperature * rng.standard_normal(depth)[data.gaps] * math.sqrt(OFFSET)
        noise = np.exp(np.array(shape.noise) / 2)[data.gaps]
        prior += temperature * rng.standard_normal(len(prior)) * noise
        update = np.linalg.solve(matrix, data.targets / deviation - prior) * self._correlations(gap)[data.gaps]
        slope = data.encoding.trend.T @ update * math.exp(shape.trend)

        def function(candidates: Encoding) -> Array:
            near = near_covariance(candidates, data.encoding, shape)
            return features(candidates) @ weights[gap] + near @ update + candidates.trend @ slope

        return function

    def _own_parts(self, rng: np.random.Generator) -> Array:
        """Return a sample of the configurations' own parts at the observations, [N]: alike for the same one."""
        first = self._same.argmax(axis=1)
        parts = self._prior_weights(len(first), rng)
        return parts[self.data.gaps, first] * math.exp(self.shape.own / 2)

    def _prior_weights(self, columns: int, rng: np.random.Generator) -> Array:
        """Return weights of the prior's features by gap, [L, K + T]: a chain with the links' correlations."""
        chain = [rng.standard_normal(columns)]
        for link in self.shape.links:
            chain.append(link * chain[-1] + math.sqrt(1 - link**2) * rng.standard_normal(columns))
        return np.array(chain)


def temperature(rng: np.random.Generator) -> float:
    """Return that of the next draw: some exploit, the others explore."""
    return COLD if rng.random() < COLD_SHARE else 1.0


def _one_of(values: tuple[float, ...], weights: Array, rng: np.random.Generator | None) -> float:
    """Return one of the values with chances by weight; the weighted mean without a generator."""
    chances = weights / weights.sum()
    return float(np.dot(chances, values)) if rng is None else float(rng.choice(values, p=chances))


def _random_features(known: Encoding, shape: Shape, rng: np.random.Generator) -> Callable[[Encoding], Array]:
    """Return features [N, K + T] whose inner products are, on average, the covariance of f."""
    spread = np.sqrt(MATERN_FREEDOM / rng.chisquare(MATERN_FREEDOM, RANDOM_FEATURES))
    scales = axis_scales(known, shape)
    frequencies = rng.standard_normal((len(scales), RANDOM_FEATURES)) * spread / scales[:, np.newaxis]
    phases = rng.uniform(0, 2 * math.pi, RANDOM_FEATURES)
    height, slope = math.sqrt(2 / RANDOM_FEATURES), math.exp(shape.trend / 2)

    def features(encoding: Encoding) -> Array:
        return np.concatenate([height * np.cos(encoding.axes @ frequencies + phases), slope * encoding.trend], axis=1)

    return features
