"""16 workers on a simulated clock, trials of one resource spread 1 to 10 in time.

Synchronous Hyperband runs one cycle of the brackets, one rung after the other, on the same workers. It draws the same
random configurations, and a trial takes as long and ends with the same loss there as here. Ours run until their
incumbent is as good as its last one.
"""

import heapq
import math
import statistics
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from kondense.search.history import History, Proposal, Status, Trial
from kondense.search.hyperband import read_plan
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester

from benchmarks.search.problems import PROBLEMS, RESOURCE, Problem

WORKERS = 16
SPREAD = 10.0
SEEDS = 10
LATEST = 2  # times the end of the synchronous run: when ours give up
NAMES = ("counting-8", "hartmann3-good")


class Clock:
    """One experiment: how long trials take, how they end, and the incumbent over time."""

    def __init__(self, problem: Problem, seed: int) -> None:
        resource = Parameter(RESOURCE, "int", problem.min_resource, problem.max_resource)
        self.problem, self.seed = problem, seed
        self.space = SearchSpace((*problem.space.parameters, resource))
        self.settings = {"resource_name": RESOURCE}
        self.plan = read_plan(self.space, self.settings)[0]
        self.busy = 0.0
        self.best = math.inf
        self.incumbents: list[tuple[float, float]] = []  # time, true regret

    def begin(self, proposal: Proposal) -> tuple[float, float]:
        """Return a trial's duration and loss."""
        rng = np.random.default_rng([self.seed, zlib.crc32(proposal.name.encode())])
        resource = int(proposal.assignments[RESOURCE])
        duration = resource * SPREAD ** float(rng.random())
        self.busy += duration
        return duration, self.problem.loss(proposal.assignments, resource, rng)

    def end(self, now: float, assignments: Mapping[str, str], loss: float) -> None:
        """Note a finished trial."""
        if int(assignments[RESOURCE]) == self.problem.max_resource and loss < self.best:
            self.best = loss
            self.incumbents.append((now, self.problem.regret(assignments)))

    def suggest(self, method: str, trials: Mapping[str, Trial], issued: str, count: int) -> tuple[list[Proposal], str]:
        history = History(tuple(trials.values()), issued, "minimize", "benchmark")
        suggestion = load_suggester(method).suggest(self.space, self.settings, self.seed, history, count)
        return list(suggestion.proposals), suggestion.settings["issued"]

    def run(self, method: str, target: float, latest: float) -> float:
        """Run one of our methods until its incumbent has the regret `target`, or the clock shows `latest`.

        Returns:
            The share of time that workers were busy.
        """
        issued, now, waiting = "", 0.0, 0.0  # waiting: worker seconds without a trial
        trials: dict[str, Trial] = {}
        running: list[tuple[float, str, Proposal, float]] = []
        while now < latest and self.time_to(target) == math.inf:
            count = WORKERS - len(running)
            proposals, issued = self.suggest(method, trials, issued, count)
            for proposal in proposals:
                duration, loss = self.begin(proposal)
                heapq.heappush(running, (now + duration, proposal.name, proposal, loss))
                trials[proposal.name] = Trial(proposal.name, proposal.assignments, Status.RUNNING)
            before = now
            now, name, proposal, loss = heapq.heappop(running)
            waiting += (WORKERS - len(running) - 1) * (now - before)
            trials[name] = Trial(name, proposal.assignments, Status.SUCCEEDED, loss)
            self.end(now, proposal.assignments, loss)
        return 1 - waiting / (WORKERS * now)

    def run_synchronously(self) -> tuple[float, float]:
        """Run Hyperband rung by rung; return the share of time that workers were busy, and the end."""
        issued, now = "", 0.0
        trials: dict[str, Trial] = {}
        for bracket in self.plan.brackets:
            for size in bracket.sizes:
                proposals, issued = self.suggest("hyperband", trials, issued, size)
                free = [now] * WORKERS
                for proposal in proposals:
                    duration, loss = self.begin(proposal)
                    end = heapq.heappop(free) + duration
                    heapq.heappush(free, end)
                    trials[proposal.name] = Trial(proposal.name, proposal.assignments, Status.SUCCEEDED, loss)
                    self.end(end, proposal.assignments, loss)
                now = max(free)
        return self.busy / (WORKERS * now), now

    def time_to(self, regret: float) -> float:
        """Return when an incumbent is this good for the first time."""
        return next((time for time, found in self.incumbents if found <= regret + 1e-12), math.inf)


def measure() -> list[dict[str, Any]]:
    """Compare on the synchronous run's final incumbent, over SEEDS seeds."""
    rows = []
    for name in NAMES:
        shares: dict[str, list[float]] = {"hyperband": [], "bohb": [], "synchronous": []}
        gains: dict[str, list[float]] = {"hyperband": [], "bohb": []}
        for seed in range(SEEDS):
            reference = Clock(PROBLEMS[name], seed)
            share, end = reference.run_synchronously()
            shares["synchronous"].append(share)
            target = reference.incumbents[-1][1]
            for method, gain in gains.items():
                clock = Clock(PROBLEMS[name], seed)
                shares[method].append(clock.run(method, target, LATEST * end))
                gain.append(reference.time_to(target) / clock.time_to(target))  # 0: not reached
        for method, busy in shares.items():
            ratios = gains.get(method, [1.0])
            rows.append(
                {
                    "problem": name,
                    "method": method,
                    "seeds": SEEDS,
                    "busy": statistics.mean(busy),
                    "gain_median": statistics.median(ratios),
                    "gain_least": min(ratios),
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"{'problem':<16}{'method':<13}{'busy':>7}{'times sooner at the target: median':>36}{'least':>7}"]
    for row in rows:
        lines.append(
            f"{row['problem']:<16}{row['method']:<13}{row['busy']:>7.1%}{row['gain_median']:>36.2f}"
            f"{row['gain_least']:>7.2f}"
        )
    return lines
