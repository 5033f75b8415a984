"""Hypervolume of the front under one budget, for two objectives, beside Optuna, SMAC and syne-tune.

The problems are those of Irshad, Karsch and Doepp 2021, "Leveraging trust for joint multi-objective and multi-fidelity
optimization", with the constants, reference points and largest hypervolumes of BoTorch's test functions. Resource r of
1..27 is their fidelity s = r / 27. An evaluation at resource r costs r; the run ends at TOTAL times the maximum. The
front is that of the configurations evaluated at the maximum. Optuna stops no trial of several objectives early, so its
samplers evaluate at the maximum only.
"""

import json
import math
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kondense.search.goals import read_goals
from kondense.search.history import History, Status, Trial
from kondense.search.pareto import hypervolume, nondominated
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester

from benchmarks.search.accounting import TOTAL
from benchmarks.search.peers.process import Peer
from benchmarks.search.problems import RESOURCE

MARKS = (4, 16, 64)
SECOND = "second"
MOOCORE = "moocore==0.3.2"
GOALS = {"objectives": f"minimize {SECOND}"}


@dataclass(frozen=True)
class Fronted:
    """A problem of two objectives, both minimized, with 0 as the reference of their hypervolume."""

    name: str
    dimensions: int
    losses: Callable[[np.ndarray, float], tuple[float, float]]
    largest: float  # hypervolume
    min_resource: int = 1
    max_resource: int = 27

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(tuple(Parameter(f"x{i}", "double", 0.0, 1.0) for i in range(self.dimensions)))

    def evaluate(self, configuration: Mapping[str, str], resource: int) -> tuple[float, float]:
        x = np.array([float(configuration[f"x{i}"]) for i in range(self.dimensions)])
        return self.losses(x, resource / self.max_resource)


def branin_currin(x: np.ndarray, s: float) -> tuple[float, float]:
    u, v, missing = 15 * x[0] - 5, 15 * x[1], 1 - s
    b, c, t = 5.1 / (4 * math.pi**2) - 0.01 * missing, 5 / math.pi - 0.1 * missing, 1 / (8 * math.pi) + 0.05 * missing
    branin = (21 - ((v - b * u**2 + c * u - 6) ** 2 + 10 * (1 - t) * math.cos(u) + 10)) / 22
    top = 2300 * x[0] ** 3 + 1900 * x[0] ** 2 + 2092 * x[0] + 60
    bottom = 100 * x[0] ** 3 + 500 * x[0] ** 2 + 4 * x[0] + 20
    low = math.exp(-1 / (2 * x[1])) if x[1] > 0 else 0.0
    return -branin, -(14 - (1 - 0.1 * missing * low) * top / bottom) / 15


def park(x: np.ndarray, s: float) -> tuple[float, float]:
    a, b = 1 - 2 * (x[0] - 0.6) ** 2, x[1]
    c, d = 1 - 3 * (x[2] - 0.5) ** 2, 1 - (x[3] - 0.8) ** 2
    scale, shift = 0.9 + 0.1 * s, 0.1 * (1 - s)
    first = (a + 1e-3 * (1 - s)) / 2 * math.sqrt(1 + (b + c**2) * d / (a**2 + 1e-4))
    second = (a + 3 * d) * math.exp(1 + math.sin(c))
    one = scale * (first + second - shift) / 22 - 0.8
    two = scale * (5 - 2 / 3 * math.exp(a + b) + d * math.sin(c) * scale - c + shift) / 4 - 0.7
    return -one, -two


FRONTED = {
    "branin-currin": Fronted("branin-currin", 2, branin_currin, 0.5235514158034145),
    "park": Fronted("park", 4, park, 0.08551927363087991),
}


class Ours:
    """One of our suggesters, driven as Katib drives it."""

    def __init__(self, method: str, problem: Fronted, seed: int) -> None:
        self.suggester, self.seed, self.full = load_suggester(method), seed, problem.max_resource
        self.space, self.settings = problem.space, dict(GOALS)
        if method in ("hyperband", "bohb"):
            resource = Parameter(RESOURCE, "int", problem.min_resource, problem.max_resource)
            self.space = SearchSpace((*self.space.parameters, resource))
            self.settings["resource_name"] = RESOURCE
        self.suggester.validate(self.space, self.settings)
        self.goals = read_goals(self.settings, "first", "minimize")
        self.trials: list[Trial] = []
        self.issued = ""

    def ask(self) -> tuple[Mapping[str, str], int]:
        history = History(tuple(self.trials), self.issued, "minimize", "benchmark", goals=self.goals)
        suggestion = self.suggester.suggest(self.space, self.settings, self.seed, history, 1)
        self.issued = suggestion.settings["issued"]
        self.asked = suggestion.proposals[0]
        return self.asked.assignments, int(self.asked.assignments.get(RESOURCE, self.full))

    def tell(self, losses: tuple[float, float]) -> None:
        done = Trial(self.asked.name, self.asked.assignments, Status.SUCCEEDED, losses[0], {SECOND: losses[1]})
        self.trials.append(done)

    def close(self) -> None:
        pass


class Theirs(Peer):
    """Another package's search, for Optuna by one of its samplers."""

    def __init__(self, name: str, problem: Any, seed: int, sampler: str = "") -> None:
        self.sampler = sampler
        super().__init__(name, problem, seed)

    def _send(self, message: Mapping[str, object]) -> None:
        super()._send({**message, "sampler": self.sampler})

    def tell(self, losses: Any) -> None:
        self._send({"loss": list(losses)})


OPTIMIZERS: dict[str, Callable[[Fronted, int], Any]] = {
    **{name: lambda p, seed, name=name: Ours(name, p, seed) for name in ("random", "tpe", "hyperband", "bohb")},
    "optuna-nsga2": lambda p, seed: Theirs("optuna_front", p, seed, "NSGAIISampler"),
    "optuna-motpe": lambda p, seed: Theirs("optuna_front", p, seed, "TPESampler"),
    "smac-parego": lambda p, seed: Theirs("smac_front", p, seed),
    "moasha": lambda p, seed: Theirs("syne_tune_front", p, seed),
}


def run(optimizer: Any, problem: Fronted) -> list[float]:
    """Return the share of the largest hypervolume at each of MARKS."""
    spent, points, shares = 0, [], []
    marks = list(MARKS)
    while marks:
        configuration, resource = optimizer.ask()
        spent += resource
        while marks and spent > marks[0] * problem.max_resource:
            shares.append(hypervolume(np.array(points).reshape(-1, 2), np.zeros(2)) / problem.largest)
            marks.pop(0)
        losses = problem.evaluate(configuration, resource)
        if resource == problem.max_resource:
            points.append(losses)
        optimizer.tell(losses)
    optimizer.close()
    return shares


def measure(seeds: Iterable[int] = range(10), optimizers: Iterable[str] = OPTIMIZERS) -> dict[str, Any]:
    """Return the shares of every optimizer on every problem with every seed, [seeds, marks] each."""
    assert MARKS[-1] == TOTAL
    seeds = list(seeds)
    return {
        problem: {
            name: [run(OPTIMIZERS[name](FRONTED[problem], seed), FRONTED[problem]) for seed in seeds]
            for name in optimizers
        }
        for problem in FRONTED
    }


def agreement(sets: int = 200) -> str:
    """Return a line on our fronts and hypervolumes of random sets beside those of moocore, 2 to 4 losses with ties."""
    rng = np.random.default_rng(0)
    asked = []
    for number in range(sets):
        losses = 2 + number % 3
        points = rng.integers(0, 12, (int(rng.integers(1, 60)), losses)) / 12 + (number % 2) * rng.random(losses) / 20
        asked.append({"points": points.tolist(), "reference": [1.0] * losses})
    command = ["uv", "run", "--quiet", "--no-project", "--python", "3.11", "--with", MOOCORE, "python"]
    script = Path(__file__).parent / "peers" / "moocore_peer.py"
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    found = subprocess.run(
        [*command, str(script)], input=json.dumps(asked), capture_output=True, text=True, check=True, env=clean
    )
    fronts, largest = 0, 0.0
    for entry, theirs in zip(asked, json.loads(found.stdout), strict=True):
        points, reference = np.array(entry["points"]), np.array(entry["reference"])
        fronts += nondominated(points).tolist() == theirs["front"]
        largest = max(largest, abs(hypervolume(points, reference) - theirs["hypervolume"]))
    return f"{MOOCORE}: {fronts} of {sets} fronts are the same, hypervolumes differ by at most {largest:.1e}"


def table(report: Mapping[str, Any]) -> list[str]:
    """Return lines of the mean share and its standard error at MARKS."""
    lines = [f"{'hypervolume':<16}{'optimizer':<15}{'runs':>5}" + "".join(f"{f'{mark}x':>17}" for mark in MARKS)]
    for problem, found in report.items():
        for name, shares in found.items():
            values = np.array(shares)
            errors = (
                values.std(axis=0, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else np.full(len(MARKS), np.nan)
            )
            cells = (f"{m:.4f} +- {e:.4f}" for m, e in zip(values.mean(axis=0), errors, strict=True))
            lines.append(f"{problem:<16}{name:<15}{len(values):>5}" + "".join(f"{cell:>17}" for cell in cells))
    return lines
