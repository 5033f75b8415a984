"""A Gaussian process over configurations and rungs, and functions sampled from its posterior.

Legend: N observations, C candidates, A axes (coordinates; one per value of a categorical), T trend columns,
K random features, L levels. The target at configuration x and level l is

    f_l(x) + offset_l + noise,   cov(f_k(x), f_l(y)) = links between k and l * (matern(x, y) + trend * x' y)

where a link is the correlation of two neighbouring levels, and the links between k and l are multiplied. The evidence
shows which levels say little about the full resource; these are ignored.

Sources: Rasmussen and Williams 2006, chapters 2 and 5 (evidence); Rahimi and Recht 2007 (random features);
Wilson et al. 2020, "Efficiently sampling functions from Gaussian process posteriors" (the draw's update).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kondense.search.space import SearchSpace

Array = NDArray[np.float64]

LINKS = (0.01, 0.5, 0.8, 0.95)  # correlations of neighbouring levels, equally likely a priori
OFFSET = 1.0  # prior variance of a level's offset, relative to the variance of f
JITTER = 1e-6
TRIES = 6  # steps of the search for hyperparameters
RANDOM_FEATURES = 96
MATERN_FREEDOM = 5  # Matern 5/2: its spectral density is a Student t of 5 degrees of freedom


@dataclass(frozen=True)
class Encoding:
    """Encoded configurations: axes [N, A] for distances, trend [N, T] for slopes and curvatures."""

    axes: Array
    trend: Array


def encode(space: SearchSpace, unit: Array) -> Encoding:
    """Encode unit-cube rows [N, D]; two different values of a categorical are at distance 1."""
    ordered = np.array([parameter.ordered for parameter in space.parameters])
    numbers = unit[:, ordered]
    slope = 2 * numbers - 1
    axes, trend = [numbers], [slope, 0.7 * (1.5 * slope**2 - 0.5)]
    for column in np.flatnonzero(~ordered):
        levels = len(space.parameters[column].values)
        index = np.minimum((unit[:, column] * levels).astype(np.int64), levels - 1)
        one_hot = np.eye(levels)[index]
        axes.append(one_hot * math.sqrt(0.5))
        trend.append((one_hot - 1 / levels) * math.sqrt(2))
    return Encoding(np.concatenate(axes, axis=1), np.concatenate(trend, axis=1) / math.sqrt(len(space.parameters)))


@dataclass(frozen=True)
class Shape:
    """Hyperparameters, all relative to the variance of f.

    Args:
        length: logarithm of the Matern kernel's length scale.
        trend: logarithm of the trend's variance.
        noise: logarithm of the noise variance at the full resource.
        growth: the noise variance grows by exp(growth) with each level below.
        links: correlation of gap g with gap g + 1, for each g, (0, 1).
    """

    length: float
    trend: float
    noise: float
    growth: float
    links: tuple[float, ...]

    def worth(self) -> Array:
        """Return the correlation of each gap with the full resource, [L]."""
        return np.cumprod(np.array([1.0, *self.links]))


@dataclass(frozen=True)
class Data:
    """Observations for the process.

    Args:
        encoding: of the configurations.
        gaps: levels below the full resource, [N].
        targets: centred, about unit variance, [N].
        dimensions: D, which determines the prior of the length scale.
    """

    encoding: Encoding
    gaps: NDArray[np.int64]
    targets: Array
    dimensions: int


class Process:
    """The process with hyperparameters sampled approximately from their posterior.

    Attributes:
        shape: the hyperparameters.
    """

    def __init__(self, data: Data, rng: np.random.Generator) -> None:
        """Fit: search for likely hyperparameters, then sample the links from their posterior given the others."""
        self.data = data
        axes, trend = data.encoding.axes, data.encoding.trend
        self._distances = _distances(axes, axes)
        self._products = trend @ trend.T
        self._levels = (data.gaps[:, np.newaxis], data.gaps)
        self._offsets = OFFSET * (data.gaps[:, np.newaxis] == data.gaps)
        self._longest = math.log(0.35 * math.sqrt(data.dimensions))
        self.shape = self._draw_links(self._climb(rng), rng)

    def _climb(self, rng: np.random.Generator) -> Shape:
        best = Shape(self._longest, -1.0, -4.0, 0.8, (LINKS[2],) * int(self.data.gaps.max()))
        score = self._posterior(best)
        for attempt in range(TRIES):
            scale = 0.85**attempt
            a, b, c, d = rng.standard_normal(4).tolist()
            if attempt % 3 == 2:  # a fresh draw from the prior, else a step
                tried = Shape(self._longest + 0.7 * a, -1 + 1.5 * b, -4 + 1.5 * c, abs(0.8 * d), best.links)
            else:
                tried = replace(
                    best,
                    length=best.length + 0.6 * scale * a,
                    trend=best.trend + scale * b,
                    noise=best.noise + scale * c,
                    growth=abs(best.growth + 0.6 * scale * d),
                )
            new = self._posterior(tried)
            if new > score:
                best, score = tried, new
        return best

    def _posterior(self, shape: Shape) -> float:
        z = ((shape.length - self._longest) / 0.7, (shape.trend + 1) / 1.5, (shape.noise + 4) / 1.5, shape.growth / 0.8)
        return self.evidence(shape, self._smooth(shape)) - 0.5 * sum(x * x for x in z)

    def _draw_links(self, shape: Shape, rng: np.random.Generator) -> Shape:
        """Sample each link given the others; links to levels without data share one sample from the prior."""
        present = set(self.data.gaps.tolist())
        shared = float(rng.choice(LINKS))
        known = [gap in present and gap + 1 in present for gap in range(len(shape.links))]
        links = [link if observed else shared for link, observed in zip(shape.links, known, strict=True)]
        smooth = self._smooth(shape)
        for gap in np.flatnonzero(known)[::-1]:
            choices = [replace(shape, links=(*links[:gap], link, *links[gap + 1 :])) for link in LINKS]
            evidence = np.array([self.evidence(choice, smooth) for choice in choices])
            chances = np.exp(evidence - evidence.max())
            links[gap] = float(rng.choice(LINKS, p=chances / chances.sum()))
        return replace(shape, links=tuple(links))

    def _smooth(self, shape: Shape) -> Array:
        """Return the covariance of f within a level, [N, N]."""
        return _matern(self._distances, shape.length) + math.exp(shape.trend) * self._products

    def covariance(self, shape: Shape, smooth: Array) -> Array:
        """Return the covariance of the targets, [N, N], relative to the variance of f."""
        gaps, worth = self.data.gaps, shape.worth()
        ratio = worth[:, np.newaxis] / worth
        between = np.minimum(ratio, 1 / ratio)
        matrix: Array = smooth * between[self._levels] + self._offsets
        matrix.flat[:: len(gaps) + 1] += np.exp(shape.noise + shape.growth * gaps) + JITTER
        return matrix

    def evidence(self, shape: Shape, smooth: Array) -> float:
        """Return the log likelihood of the targets, the variance of f integrated out (inverse gamma prior (1, 1))."""
        targets = self.data.targets
        count = len(targets)
        # With the targets as the last row and column, the Cholesky factor L ends with the row L^-1 targets.
        bordered = np.empty((count + 1, count + 1))
        bordered[:count, :count] = self.covariance(shape, smooth)
        bordered[count, :count] = targets
        bordered[count, count] = 1 + 2 * float(targets @ targets) / JITTER
        factor = np.linalg.cholesky(bordered)
        half_log_determinant = float(np.log(np.diag(factor)[:count]).sum())
        fit = float((factor[count, :count] ** 2).sum())
        return -(count / 2 + 1) * math.log(1 + fit / 2) - half_log_determinant

    def information(self, gap: int = 0) -> float:
        """Return the number of observations, weighted by their squared correlation with the level `gap`."""
        return float((self._correlations(gap)[self.data.gaps] ** 2).sum())

    def _correlations(self, gap: int) -> Array:
        """Return the correlation of each level with the level `gap`, [L]."""
        worth = self.shape.worth()
        return np.minimum(worth / worth[gap], worth[gap] / worth)

    def posterior(self) -> Callable[[Encoding], tuple[Array, Array]]:
        """Return mean and standard deviation of f at the full resource: encoded candidates -> ([C], [C])."""
        data, shape = self.data, self.shape
        matrix = self.covariance(shape, self._smooth(shape))
        weights = np.linalg.solve(matrix, data.targets)
        variance = (1 + float(data.targets @ weights) / 2) / (len(data.targets) / 2 + 1)
        worth = shape.worth()[data.gaps]

        def function(candidates: Encoding) -> tuple[Array, Array]:
            slope = math.exp(shape.trend)
            near = _matern(_distances(candidates.axes, data.encoding.axes), shape.length)
            near = (near + slope * candidates.trend @ data.encoding.trend.T) * worth
            own = 1 + slope * (candidates.trend**2).sum(axis=1)
            left = own - (near * np.linalg.solve(matrix, near.T).T).sum(axis=1)
            return near @ weights, np.sqrt(variance * np.maximum(left, JITTER))

        return function

    def draw(self, rng: np.random.Generator, gap: int = 0) -> Callable[[Encoding], Array]:
        """Return a function sampled from the posterior at the level `gap`: encoded candidates -> values [C]."""
        data, shape = self.data, self.shape
        features = _random_features(data.encoding.axes.shape[1], shape, rng)
        weights = self._prior_weights(RANDOM_FEATURES + data.encoding.trend.shape[1], rng)
        depth = len(weights)
        matrix = self.covariance(shape, self._smooth(shape))
        fit = float(data.targets @ np.linalg.solve(matrix, data.targets))
        deviation = math.sqrt((1 + fit / 2) / (len(data.targets) / 2 + 1))
        prior = (features(data.encoding) * weights[data.gaps]).sum(axis=1)
        prior += rng.standard_normal(depth)[data.gaps] * math.sqrt(OFFSET)
        prior += rng.standard_normal(len(prior)) * np.exp((shape.noise + shape.growth * data.gaps) / 2)
        update = np.linalg.solve(matrix, data.targets / deviation - prior) * self._correlations(gap)[data.gaps]
        slope = data.encoding.trend.T @ update * math.exp(shape.trend)

        def function(candidates: Encoding) -> Array:
            near = _matern(_distances(candidates.axes, data.encoding.axes), shape.length)
            return features(candidates) @ weights[gap] + near @ update + candidates.trend @ slope

        return function

    def _prior_weights(self, columns: int, rng: np.random.Generator) -> Array:
        """Return weights of the prior's features by gap, [L, K + T]: a chain with the links' correlations."""
        chain = [rng.standard_normal(columns)]
        for link in self.shape.links:
            chain.append(link * chain[-1] + math.sqrt(1 - link**2) * rng.standard_normal(columns))
        return np.array(chain)


def _random_features(axes: int, shape: Shape, rng: np.random.Generator) -> Callable[[Encoding], Array]:
    """Return features [N, K + T] whose inner products are, on average, the covariance of f."""
    spread = np.sqrt(MATERN_FREEDOM / rng.chisquare(MATERN_FREEDOM, RANDOM_FEATURES))
    frequencies = rng.standard_normal((axes, RANDOM_FEATURES)) * spread / math.exp(shape.length)
    phases = rng.uniform(0, 2 * math.pi, RANDOM_FEATURES)
    height, slope = math.sqrt(2 / RANDOM_FEATURES), math.exp(shape.trend / 2)

    def features(encoding: Encoding) -> Array:
        return np.concatenate([height * np.cos(encoding.axes @ frequencies + phases), slope * encoding.trend], axis=1)

    return features


def _distances(a: Array, b: Array) -> Array:
    """Return sqrt(5) times the Euclidean distances of rows, [N, M]."""
    squares = (a * a).sum(axis=1)[:, np.newaxis] + (b * b).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(5 * np.maximum(squares, 0))


def _matern(distances: Array, length: float) -> Array:
    scaled = distances / math.exp(length)
    return (1 + scaled + scaled * scaled / 3) * np.exp(-scaled)
