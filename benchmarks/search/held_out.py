"""Five problems that no choice of the algorithm was made on: other shapes, dimensions and kinds of parameters.

Sources: Branin with fidelities as in BoTorch. Rastrigin with a displacement that falls with
the resource, after Wang, Jin and Doherty 2018, "A generic test suite for evolutionary multifidelity optimization";
ours are cells of operations as in NAS-Bench-201, an ellipsoid and a line.
"""

import abc
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from kondense.search.space import Parameter, SearchSpace

MAX_RESOURCE = 27
OPERATIONS = ("none", "skip", "conv1", "conv3", "pool")
EDGES = 6
Array = np.ndarray


@dataclass(frozen=True)
class Box(abc.ABC):
    """A function of doubles between two bounds; subclasses give its value at a share of the full resource."""

    name: str
    variables: int
    low: float
    high: float
    noise: float = 0.0  # standard deviation at the least resource; it falls with the root of the resource
    min_resource: int = 1
    max_resource: int = MAX_RESOURCE

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(tuple(Parameter(f"x{i}", "double", self.low, self.high) for i in range(self.variables)))

    def loss(self, configuration: Mapping[str, str], resource: int, rng: np.random.Generator) -> float:
        clean = self.value(self._point(configuration), resource / self.max_resource)
        return clean + self.noise * float(rng.standard_normal()) / math.sqrt(resource)

    def regret(self, configuration: Mapping[str, str]) -> float:
        return self.value(self._point(configuration), 1.0) - self.least

    def _point(self, configuration: Mapping[str, str]) -> Array:
        return np.array([float(configuration[f"x{i}"]) for i in range(self.variables)])

    @cached_property
    def least(self) -> float:
        return 0.0

    @abc.abstractmethod
    def value(self, x: Array, share: float) -> float:
        """Return the value at a point without noise."""


class Branin(Box):
    @cached_property
    def least(self) -> float:
        return 0.397887

    def value(self, x: Array, share: float) -> float:
        u, v, missing = 15 * x[0] - 5, 15 * x[1], 1 - share
        b = 5.1 / (4 * math.pi**2) - 0.1 * missing
        return float((v - b * u**2 + 5 / math.pi * u - 6) ** 2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(u) + 10)


class Rastrigin(Box):
    def value(self, x: Array, share: float) -> float:
        z = x - 0.3 - 0.1 * (1 - share) * np.cos(10 * math.pi * (1 - share) + np.arange(self.variables))
        return float((z**2 + 1 - np.cos(2 * math.pi * z)).sum())


class Ellipsoid(Box):
    def value(self, x: Array, share: float) -> float:
        scales = np.logspace(0, 1.5, self.variables)
        return float(scales @ (x - 0.25 - 0.1 * (1 - share)) ** 2)


class Line(Box):
    @cached_property
    def least(self) -> float:
        return min(self.value(np.array([x]), 1.0) for x in np.linspace(0, 1, 100_001))

    def value(self, x: Array, share: float) -> float:
        return float((6 * x[0] - 2) ** 2 * math.sin(12 * x[0] - 4) + 5 * (1 - share) * (x[0] - 0.5))


@dataclass(frozen=True)
class Cells:
    """Validation errors of cells, one operation of five on each of six edges, along power laws with noise."""

    name: str = "cells"
    noise: float = 0.004
    min_resource: int = 1
    max_resource: int = MAX_RESOURCE

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(tuple(Parameter(f"edge{i}", "categorical", values=OPERATIONS) for i in range(EDGES)))

    def loss(self, configuration: Mapping[str, str], resource: int, rng: np.random.Generator) -> float:
        end, speed = self._curve(configuration)
        return end + (0.9 - end) * resource**-speed + self.noise * float(rng.standard_normal())

    def regret(self, configuration: Mapping[str, str]) -> float:
        return self._end(self._number(configuration)) - self._least

    def _end(self, number: tuple[int, ...]) -> float:
        alone, pairs, _ = self._effects
        both = sum(pairs[i, j, number[i], number[j]] for i, j in itertools.combinations(range(EDGES), 2))
        quality = sum(alone[i, operation] for i, operation in enumerate(number)) + both
        return float(0.05 + 0.5 / (1 + math.exp(quality)))

    def _curve(self, configuration: Mapping[str, str]) -> tuple[float, float]:
        number = self._number(configuration)
        speeds = self._effects[2]
        return self._end(number), 0.8 + float(np.mean([speeds[operation] for operation in number]))

    def _number(self, configuration: Mapping[str, str]) -> tuple[int, ...]:
        return tuple(OPERATIONS.index(configuration[f"edge{i}"]) for i in range(EDGES))

    @cached_property
    def _least(self) -> float:
        return min(map(self._end, itertools.product(range(len(OPERATIONS)), repeat=EDGES)))

    @cached_property
    def _effects(self) -> tuple[Array, Array, Array]:
        """Effects on the quality of operations, [6, 5], and of pairs of them, [6, 6, 5, 5]; on the speed, [5]."""
        rng, count = np.random.default_rng(201), len(OPERATIONS)
        alone = 0.5 * rng.standard_normal((EDGES, count)) + np.array([-0.8, 0.2, 0.3, 0.6, -0.2])
        pairs = 0.3 * rng.standard_normal((EDGES, EDGES, count, count))
        return alone, pairs, np.array([0.3, 0.2, 0.0, -0.2, 0.1])  # what ends best begins slowly


HELD_OUT = (
    Branin("branin", 2, 0.0, 1.0),
    Rastrigin("rastrigin-5", 5, -1.0, 1.0, noise=0.5),
    Ellipsoid("ellipsoid-20", 20, 0.0, 1.0),
    Line("line", 1, 0.0, 1.0),
    Cells(),
)
