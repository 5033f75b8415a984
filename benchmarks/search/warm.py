"""Warm start: true regret with the trials of an earlier search, a related and an unrelated one, beside a cold start.

The earlier search is the algorithm's own on the same problem with another seed and EARLIER times the maximum resource.
The unrelated one has its losses turned around, which is worse than unrelated: its best configurations are the worst.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks.search.accounting import MARKS, run
from benchmarks.search.ours import Ours
from benchmarks.search.problems import PROBLEMS, RESOURCE, Problem

EARLIER = 16  # multiples of the maximum resource
MOST = 80
STARTS = ("cold", "related", "reversed")


def earlier_trials(problem: Problem, algorithm: str, seed: int, sign: float) -> str:
    """Return the setting `earlier`: the best half and a sample of the rest of an earlier search's trials."""
    optimizer, rng, spent = Ours(algorithm, problem, 1_000 + seed), np.random.default_rng([seed, 8]), 0
    found = []
    while spent < EARLIER * problem.max_resource:
        configuration, resource = optimizer.ask()
        loss = problem.loss(configuration, resource, rng)
        optimizer.tell(loss)
        spent += resource
        point = {name: value for name, value in configuration.items() if name != RESOURCE}
        found.append([point, resource, [sign * loss]])
    found.sort(key=lambda trial: (-trial[1], trial[2]))
    rest = found[MOST // 2 :]
    picked = rng.choice(len(rest), min(len(rest), MOST // 2), replace=False) if rest else []
    return json.dumps(found[: MOST // 2] + [rest[index] for index in picked])


def measure(
    seeds: Iterable[int] = range(10),
    problems: Iterable[str] = ("counting-8", "hartmann3-good"),
    algorithm: str = "bohb",
) -> dict[str, Any]:
    """Return the regrets at MARKS of every start on every problem, [seeds, marks] each."""
    report: dict[str, Any] = {problem: {start: [] for start in STARTS} for problem in problems}
    for seed in seeds:
        for name in report:
            problem = PROBLEMS[name]
            for start in STARTS:
                settings = {}
                if start != "cold":
                    settings["earlier"] = earlier_trials(problem, algorithm, seed, -1 if start == "reversed" else 1)
                trace = run(Ours(algorithm, problem, seed, settings), problem, seed)
                report[name][start].append([trace.regret_at(mark) for mark in MARKS])
    return report


def table(report: Mapping[str, Any]) -> list[str]:
    """Return lines of mean regret and standard error at MARKS."""
    lines = [f"{'warm start':<16}{'earlier trials':<16}{'runs':>5}" + "".join(f"{f'{mark}x':>19}" for mark in MARKS)]
    for problem, starts in report.items():
        for start, regrets in starts.items():
            values = np.array(regrets)
            errors = values.std(axis=0, ddof=1) / math.sqrt(max(len(values), 2))
            cells = (f"{m:.4f} +- {e:.4f}" for m, e in zip(values.mean(axis=0), errors, strict=True))
            lines.append(f"{problem:<16}{start:<16}{len(values):>5}" + "".join(f"{cell:>19}" for cell in cells))
    return lines
