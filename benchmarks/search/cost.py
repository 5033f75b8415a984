"""CPU seconds per suggestion: the whole call, from strings to strings, 16 parameters, one thread."""

import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
from kondense.search.goals import read_goals
from kondense.search.history import History, Proposal, Status, Trial
from kondense.search.ledger import identity
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester

DIMENSIONS = 16
OBSERVATIONS = (100, 1_000, 10_000)
REPEATS = 15
BANDS = {"resource_name": "epochs", "bracket_sizes": "floor"}
GOALS = {"objectives": "minimize a, minimize b"}
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "random": ("random", {}),
    "tpe": ("tpe", {"random_fraction": "0"}),
    "hyperband": ("hyperband", BANDS),
    "bohb-density": ("bohb", BANDS | {"model": "density", "random_fraction": "0"}),
    "bohb": ("bohb", BANDS | {"random_fraction": "0"}),
    "tpe, 3 goals": ("tpe", GOALS | {"random_fraction": "0"}),
    "bohb, 3 goals": ("bohb", BANDS | GOALS | {"random_fraction": "0"}),
}


def measure() -> list[dict[str, Any]]:
    """Time the draw of one new configuration after a number of finished trials."""
    rows = []
    for name, (method, settings) in CASES.items():
        for observations in OBSERVATIONS:
            space, history = _history(method in ("hyperband", "bohb"), observations)
            history = replace(history, goals=read_goals(settings, "loss", "minimize"))
            seconds = []
            for seed in range(REPEATS):
                history = _with_another_end(history, seed)
                start = time.process_time()
                load_suggester(method).suggest(space, settings, seed, history, 1)
                seconds.append(time.process_time() - start)
            rows.append(
                {
                    "optimizer": name,
                    "observations": len(history.trials),
                    "median_cpu_s": statistics.median(seconds),
                    "best_cpu_s": min(seconds),
                    "ledger_bytes": len(history.issued),
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"{'optimizer':<15}{'observations':>13}{'median':>11}{'  best':>9}{'ledger':>9}"]
    for row in rows:
        lines.append(
            f"{row['optimizer']:<15}{row['observations']:>13}{row['median_cpu_s']:>11.4f}{row['best_cpu_s']:>9.4f}"
            f"{row['ledger_bytes']:>9}"
        )
    return lines


def _history(banded: bool, observations: int) -> tuple[SearchSpace, History]:
    """Return at least this many finished trials, after which the next is a new configuration."""
    rng = np.random.default_rng(0)
    parameters = [Parameter(f"x{i}", "double", 0.0, 1.0) for i in range(DIMENSIONS)]
    space = SearchSpace((*parameters, *([Parameter("epochs", "int", 1, 81)] if banded else [])))
    method, settings = ("hyperband", BANDS) if banded else ("random", {})
    trials: list[Trial] = []
    issued = ""
    while True:
        history = History(tuple(trials), issued)
        batch = min(81, observations - len(trials)) if banded else observations
        suggestion = load_suggester(method).suggest(space, settings, 0, history, max(batch, 1))
        first = identity(suggestion.proposals[0].name)
        if len(trials) >= observations and first is not None and first.rung == 0:
            return space, history
        issued = suggestion.settings["issued"]
        for proposal in suggestion.proposals:
            loss, others = _loss(proposal, rng), dict(zip("ab", rng.random(2).tolist(), strict=True))
            trials.append(Trial(proposal.name, proposal.assignments, Status.SUCCEEDED, loss, others))


def _with_another_end(history: History, number: int) -> History:
    """Return a history in which one more trial has ended, as between two calls: another value of trial `number`."""
    trials = list(history.trials)
    trials[number] = replace(trials[number], value=(trials[number].value or 0.0) + 1e-9)
    return replace(history, trials=tuple(trials))


def _loss(proposal: Proposal, rng: np.random.Generator) -> float:
    distance = sum((float(proposal.assignments[f"x{i}"]) - 0.3) ** 2 for i in range(DIMENSIONS))
    return distance + 0.1 * float(rng.standard_normal())
