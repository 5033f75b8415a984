"""The covariance of configurations and rungs: hyperparameters, encoding, distances.

Legend: N observations, D parameters, A axes (coordinates; one per value of a categorical), T trend columns, L levels.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kondense.search.space import SearchSpace

Array = NDArray[np.float64]

LINKS = (0.01, 0.5, 0.8, 0.95, 0.99)  # correlations of neighbouring levels, equally likely a priori
OFFSET = 1.0  # prior variance of a level's offset, relative to the variance of f
JITTER = 1e-6
SAME = 1e-5  # distance of two encodings of one configuration at most, in length scales


@dataclass(frozen=True)
class Encoding:
    """Encoded configurations: axes [N, A] for distances, trend [N, T] for slopes and curvatures.

    Args:
        axes: coordinates.
        trend: columns of the trend.
        firsts: number of the first axis of each parameter, [D]; they are in the order of the axes.
    """

    axes: Array
    trend: Array
    firsts: NDArray[np.int64]

    @cached_property
    def squares(self) -> Array:
        """The squared distances of all pairs of rows along each parameter, [D, N, N]."""
        axes = self.axes.T
        apart = axes[:, :, np.newaxis] - axes[:, np.newaxis]
        apart *= apart
        # Parameters of one axis each need no sum, which costs as much as all else.
        return apart if len(self.firsts) == len(axes) else np.add.reduceat(apart, self.firsts)

    def take(self, index: NDArray[np.int64]) -> "Encoding":
        """Return the configurations with these numbers, and their distances if these are known."""
        taken = Encoding(self.axes[index], self.trend[index], self.firsts)
        if "squares" in self.__dict__:
            taken.__dict__["squares"] = self.squares[:, index[:, np.newaxis], index]
        return taken


def encode(space: SearchSpace, unit: Array) -> Encoding:
    """Encode unit-cube rows [N, D]; two different values of a categorical are at distance 1."""
    ordered = np.array([parameter.ordered for parameter in space.parameters])
    numbers = unit[:, ordered]
    slope = 2 * numbers - 1
    axes, trend = [numbers], [slope, 0.7 * (1.5 * slope**2 - 0.5)]
    firsts = list(range(numbers.shape[1]))
    for column in np.flatnonzero(~ordered):
        levels = len(space.parameters[column].values)
        index = np.minimum((unit[:, column] * levels).astype(np.int64), levels - 1)
        one_hot = np.eye(levels)[index]
        firsts.append(sum(part.shape[1] for part in axes))
        axes.append(one_hot * math.sqrt(0.5))
        trend.append((one_hot - 1 / levels) * math.sqrt(2))
    scaled = np.concatenate(trend, axis=1) / math.sqrt(len(space.parameters))
    return Encoding(np.concatenate(axes, axis=1), scaled, np.array(firsts))


@dataclass(frozen=True)
class Shape:
    """Hyperparameters, all relative to the variance of f.

    Args:
        lengths: logarithms of the Matern kernel's length scales, one per parameter, [D].
        trend: logarithm of the trend's variance.
        own: logarithm of the variance of what a configuration has of its own at every level, unlike its neighbours.
        noise: logarithms of the noise variances, one per gap, [L].
        links: correlation of gap g with gap g + 1, for each g, (0, 1).
    """

    lengths: tuple[float, ...]
    trend: float
    own: float
    noise: tuple[float, ...]
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


def axis_scales(encoding: Encoding, shape: Shape) -> Array:
    """Return the length scale of each axis, [A]."""
    sizes = np.diff([*encoding.firsts, encoding.axes.shape[1]])
    return np.exp(np.repeat(shape.lengths, sizes))


def near_covariance(one: Encoding, other: Encoding, shape: Shape) -> Array:
    """Return the covariance of rows within a level, [N, M], but for the trend's."""
    apart = distances(one, other, shape)
    return matern(apart) + math.exp(shape.own) * (apart < SAME)


def distances(one: Encoding, other: Encoding, shape: Shape) -> Array:
    """Return sqrt(5) times the distances of rows in length scales, [N, M]."""
    scales = axis_scales(other, shape)
    a, b = one.axes / scales, other.axes / scales
    squares = (a * a).sum(axis=1)[:, np.newaxis] + (b * b).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(5 * np.maximum(squares, 0))


def matern(scaled: Array) -> Array:
    """Return the Matern 5/2 covariances of distances times sqrt(5)."""
    return (1 + scaled + scaled * scaled / 3) * np.exp(-scaled)
