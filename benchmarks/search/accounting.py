"""One worker, one budget: the same accounting for every optimizer.

An evaluation at resource b costs b; a promoted configuration is paid again from nothing; the run ends at TOTAL times
the maximum resource, or sooner if asked. The incumbent is the configuration with the lowest observed loss at the
largest resource seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from benchmarks.search.problems import Problem

TOTAL = 64
MARKS = (1, 4, 16, 64)  # multiples of the maximum resource at which incumbents are compared


class Optimizer(Protocol):
    """Asks for one evaluation at a time."""

    def ask(self) -> tuple[Mapping[str, str], int]:
        """Return a configuration and the resource to spend on it."""

    def tell(self, loss: float) -> None:
        """Take the loss of the evaluation asked for last."""

    def close(self) -> None:
        """End."""


@dataclass
class Trace:
    """The incumbents of one run: (cost so far in multiples of the maximum resource, true regret), at each change."""

    steps: list[tuple[float, float]] = field(default_factory=list)

    def regret_at(self, mark: float) -> float:
        """Return the regret of the incumbent at a cost of `mark`; that of the first one before there is any."""
        reached = [regret for cost, regret in self.steps if cost <= mark + 1e-9]
        return reached[-1] if reached else self.steps[0][1]

    def cost_of(self, regret: float) -> float:
        """Return the cost at which the incumbent is at least this good for the first time; inf if never."""
        return next((cost for cost, found in self.steps if found <= regret), float("inf"))


def run(optimizer: Optimizer, problem: Problem, seed: int, total: int = TOTAL) -> Trace:
    """Spend `total` times the maximum resource; `seed` fixes the noise."""
    rng = np.random.default_rng([seed, 7])
    trace, spent, best = Trace(), 0, (0, float("inf"))
    while True:
        configuration, resource = optimizer.ask()
        spent += resource
        if spent > total * problem.max_resource:
            optimizer.close()
            return trace
        loss = problem.loss(configuration, resource, rng)
        if resource > best[0] or (resource == best[0] and loss < best[1]):
            best = (resource, loss)
            trace.steps.append((spent / problem.max_resource, problem.regret(configuration)))
        optimizer.tell(loss)
