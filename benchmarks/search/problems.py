"""The problems: an observed loss at any resource, and the true regret that no optimizer sees.

Sources: counting ones: Falkner et al., BOHB, ICML 2018, section 5.1. Hartmann-3 with fidelities: mf-prior-bench.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from kondense.search.space import Parameter, SearchSpace

RESOURCE = "resource"


class Problem(Protocol):
    """A function to minimize.

    Attributes:
        name: as in the tables.
        min_resource: the least resource of an evaluation; resources are whole.
        max_resource: the resource at which the regret counts.
    """

    name: str
    min_resource: int
    max_resource: int

    @property
    def space(self) -> SearchSpace: ...

    def loss(self, configuration: Mapping[str, str], resource: int, rng: np.random.Generator) -> float: ...

    def regret(self, configuration: Mapping[str, str]) -> float: ...


@dataclass(frozen=True)
class CountingOnes:
    """Binary categoricals and Bernoulli probabilities, `pairs` of each; the resource is the number of draws."""

    name: str
    pairs: int
    min_resource: int = 9
    max_resource: int = 729

    @property
    def space(self) -> SearchSpace:
        words = [Parameter(f"c{i}", "categorical", values=("0", "1")) for i in range(self.pairs)]
        numbers = [Parameter(f"x{i}", "double", 0.0, 1.0) for i in range(self.pairs)]
        return SearchSpace((*words, *numbers))

    def loss(self, configuration: Mapping[str, str], resource: int, rng: np.random.Generator) -> float:
        chances = np.array([float(configuration[f"x{i}"]) for i in range(self.pairs)])
        means = rng.binomial(resource, chances) / resource
        return -(self._ones(configuration) + float(means.sum())) / (2 * self.pairs)

    def regret(self, configuration: Mapping[str, str]) -> float:
        total = self._ones(configuration) + sum(float(configuration[f"x{i}"]) for i in range(self.pairs))
        return 1 - total / (2 * self.pairs)

    def _ones(self, configuration: Mapping[str, str]) -> int:
        return sum(configuration[f"c{i}"] == "1" for i in range(self.pairs))


HARTMANN_3_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
HARTMANN_3_WIDTHS = np.array([[3.0, 10, 30], [0.1, 10, 35], [3.0, 10, 30], [0.1, 10, 35]])
HARTMANN_3_CENTRES = 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]])
HARTMANN_3_OPTIMUM = -3.86278


@dataclass(frozen=True)
class Hartmann3:
    """Hartmann's function of 3 variables; at less resource its weights are lower and one-sided noise is added.

    Resource r of 1..81 is the fidelity z = 100 r / 81 of the source.
    """

    name: str
    bias: float
    noise: float
    min_resource: int = 1
    max_resource: int = 81

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(tuple(Parameter(f"x{i}", "double", 0.0, 1.0) for i in range(3)))

    def loss(self, configuration: Mapping[str, str], resource: int, rng: np.random.Generator) -> float:
        missing = 1 - math.log(100 * resource / self.max_resource) / math.log(100)
        clean = self._value(configuration, HARTMANN_3_WEIGHTS - self.bias * missing)
        return clean + abs(float(rng.standard_normal())) * self.noise * missing

    def regret(self, configuration: Mapping[str, str]) -> float:
        return self._value(configuration, HARTMANN_3_WEIGHTS) - HARTMANN_3_OPTIMUM

    def _value(self, configuration: Mapping[str, str], weights: np.ndarray) -> float:
        x = np.array([float(configuration[f"x{i}"]) for i in range(3)])
        return -float(weights @ np.exp(-(HARTMANN_3_WIDTHS * (x - HARTMANN_3_CENTRES) ** 2).sum(axis=1)))


PROBLEMS: dict[str, Problem] = {
    "counting-8": CountingOnes("counting-8", pairs=8),
    "counting-16": CountingOnes("counting-16", pairs=16),
    "hartmann3-good": Hartmann3("hartmann3-good", bias=2.5, noise=2.0),
    "hartmann3-bad": Hartmann3("hartmann3-bad", bias=4.0, noise=5.0),
}
