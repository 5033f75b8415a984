"""The problems: an observed loss at any resource, and the true regret that no optimizer sees.

Sources: counting ones: Falkner et al., BOHB, ICML 2018, section 5.1. Hartmann-3 and Hartmann-6 with fidelities:
mf-prior-bench. Learning curves: `tables`, made by `python -m benchmarks.search.tables`. More: `functions`, `held_out`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from kondense.search.space import Parameter, SearchSpace

from benchmarks.search.functions import Borehole, Currin, Training
from benchmarks.search.held_out import HELD_OUT
from benchmarks.search.tables.grids import GRIDS, MAX_RESOURCE, STEPS, Grid

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


HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
HARTMANN_3_WIDTHS = np.array([[3.0, 10, 30], [0.1, 10, 35], [3.0, 10, 30], [0.1, 10, 35]])
HARTMANN_3_CENTRES = 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]])
HARTMANN_6_WIDTHS = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
HARTMANN_6_CENTRES = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381],
    ]
)  # fmt: skip
HARTMANN: dict[int, tuple[np.ndarray, np.ndarray, float]] = {  # by number of variables; the last is the minimum
    3: (HARTMANN_3_WIDTHS, HARTMANN_3_CENTRES, -3.86278),
    6: (HARTMANN_6_WIDTHS, HARTMANN_6_CENTRES, -3.32237),
}


@dataclass(frozen=True)
class Hartmann:
    """Hartmann's function of 3 or 6 variables; at less resource its weights are lower and one-sided noise is added.

    Resource r of 1..81 is the fidelity z = 100 r / 81 of the source.
    """

    name: str
    variables: int
    bias: float
    noise: float
    min_resource: int = 1
    max_resource: int = 81

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(tuple(Parameter(f"x{i}", "double", 0.0, 1.0) for i in range(self.variables)))

    def loss(self, configuration: Mapping[str, str], resource: int, rng: np.random.Generator) -> float:
        missing = 1 - math.log(100 * resource / self.max_resource) / math.log(100)
        clean = self._value(configuration, HARTMANN_WEIGHTS - self.bias * missing)
        return clean + abs(float(rng.standard_normal())) * self.noise * missing

    def regret(self, configuration: Mapping[str, str]) -> float:
        return self._value(configuration, HARTMANN_WEIGHTS) - HARTMANN[self.variables][2]

    def _value(self, configuration: Mapping[str, str], weights: np.ndarray) -> float:
        widths, centres, _ = HARTMANN[self.variables]
        x = np.array([float(configuration[f"x{i}"]) for i in range(self.variables)])
        return -float(weights @ np.exp(-(widths * (x - centres) ** 2).sum(axis=1)))


@dataclass(frozen=True)
class Table:
    """Learning curves of really trained models: the loss is looked up.

    A hyperparameter of numbers is the int of its position among them, one of words is a categorical. The regret is the
    loss at the full resource beyond the table's least.
    """

    name: str
    min_resource: int = 1
    max_resource: int = MAX_RESOURCE

    @cached_property
    def grid(self) -> Grid:
        return GRIDS[self.name]

    @cached_property
    def losses(self) -> np.ndarray:
        """The losses of each configuration after each unit of resource, [N, R]."""
        with np.load(Path(__file__).parent / "tables" / f"{self.name}.npz") as stored:
            return np.cumsum(stored["steps"], axis=1, dtype=np.uint16) / STEPS * self.grid.scale

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(
            tuple(
                Parameter(name, "categorical", values=tuple(map(str, values)))
                if isinstance(values[0], str)
                else Parameter(name, "int", 0, len(values) - 1)
                for name, values in self.grid.values.items()
            )
        )

    def loss(self, configuration: Mapping[str, str], resource: int, rng: np.random.Generator) -> float:
        return float(self.losses[self._number(configuration), resource - 1])

    def regret(self, configuration: Mapping[str, str]) -> float:
        final = self.losses[:, -1]
        return float(final[self._number(configuration)] - final.min())

    def _number(self, configuration: Mapping[str, str]) -> int:
        return self.grid.number(
            {
                name: values.index(configuration[name]) if isinstance(values[0], str) else int(configuration[name])
                for name, values in self.grid.values.items()
            }
        )


PROBLEMS: dict[str, Problem] = {
    "counting-8": CountingOnes("counting-8", pairs=8),
    "counting-16": CountingOnes("counting-16", pairs=16),
    "hartmann3-good": Hartmann("hartmann3-good", 3, bias=2.5, noise=2.0),
    "hartmann3-bad": Hartmann("hartmann3-bad", 3, bias=4.0, noise=5.0),
    "hartmann6-good": Hartmann("hartmann6-good", 6, bias=2.5, noise=2.0),
    "hartmann6-bad": Hartmann("hartmann6-bad", 6, bias=4.0, noise=5.0),
    **{name: Table(name) for name in GRIDS},
    **{each.name: each for each in (Borehole(), Currin(), Training(), *HELD_OUT)},
}
