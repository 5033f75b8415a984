"""Regret of the incumbent under one budget, for our methods and their peers."""

import ast
import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kondense.search import suggesters

import benchmarks.search
from benchmarks.search.accounting import MARKS, TOTAL, Optimizer, Trace, run
from benchmarks.search.ours import Ours
from benchmarks.search.peers.process import REQUIREMENTS, Peer
from benchmarks.search.problems import PROBLEMS, Problem

OPTIMIZERS: dict[str, Callable[[Problem, int], Optimizer]] = {
    "random": lambda problem, seed: Ours("random", problem, seed),
    "tpe": lambda problem, seed: Ours("tpe", problem, seed),
    "hyperband": lambda problem, seed: Ours("hyperband", problem, seed),
    "hyperband-floor": lambda problem, seed: Ours("hyperband", problem, seed, {"bracket_sizes": "floor"}),
    "bohb": lambda problem, seed: Ours("bohb", problem, seed),
    "bohb-density": lambda problem, seed: Ours("bohb", problem, seed, {"model": "density"}),
    "optuna": lambda problem, seed: Peer("optuna", problem, seed),
    "hpbandster": lambda problem, seed: Peer("hpbandster", problem, seed),
    "dehb": lambda problem, seed: Peer("dehb", problem, seed),
    "smac": lambda problem, seed: Peer("smac", problem, seed),
    "syne_tune": lambda problem, seed: Peer("syne_tune", problem, seed),
}


@dataclass(frozen=True)
class Result:
    """One run.

    Args:
        code: what made it, by `code_of`.
        steps: changes of the incumbent: (cost in multiples of the maximum resource, true regret).
        total: budget of the run, in multiples of the maximum resource.
    """

    problem: str
    optimizer: str
    seed: int
    code: str
    seconds: float
    steps: list[tuple[float, float]]
    total: int = TOTAL

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Result":
        return cls(**{**entry, "steps": [(cost, regret) for cost, regret in entry["steps"]]})


@functools.cache
def code_of(optimizer: str) -> str:
    """Return what decides an optimizer's results: a peer's versions, or a digest of our code but its comments."""
    if optimizer in REQUIREMENTS:
        return " ".join(REQUIREMENTS[optimizer])
    names = ("accounting.py", "ours.py", "problems.py", "functions.py", "held_out.py")
    sources = [Path(benchmarks.search.__path__[0]) / name for name in names]
    sources += sorted(Path(suggesters.__file__).parent.glob("*.py"))
    code = "\n".join(_without_docstrings(source.read_text()) for source in sources)
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def _without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def measure(
    problems: Iterable[str],
    optimizers: Iterable[str],
    seeds: Iterable[int],
    known: Iterable[Result] = (),
    total: int = TOTAL,
) -> Iterable[Result]:
    """Yield a run of every optimizer on every problem with every seed, as it ends: seed by seed, the known ones first.

    Args:
        problems: names in PROBLEMS.
        optimizers: names in OPTIMIZERS.
        seeds: of the runs.
        known: earlier runs; those of at least this budget made by the same code are not run again.
        total: budget of each run, in multiples of the maximum resource.
    """
    found = {
        (result.problem, result.optimizer, result.seed, result.code): result
        for result in known
        if result.total >= total
    }
    problems, optimizers = list(problems), list(optimizers)
    wanted = [(p, o, seed, code_of(o)) for seed in seeds for p in problems for o in optimizers]
    yield from (found[key] for key in wanted if key in found)
    for problem, name, seed, code in wanted:
        if (problem, name, seed, code) not in found:
            start = time.perf_counter()
            trace = run(OPTIMIZERS[name](PROBLEMS[problem], seed), PROBLEMS[problem], seed, total)
            yield Result(problem, name, seed, code, round(time.perf_counter() - start, 2), trace.steps, total)


def merge(known: Iterable[Result], results: Iterable[Result]) -> list[Result]:
    """Return the results and those known ones of other runs that today's code made."""
    merged = {(result.problem, result.optimizer, result.seed): result for result in known}
    merged |= {(result.problem, result.optimizer, result.seed): result for result in results}
    return [result for result in merged.values() if result.code == code_of(result.optimizer)]


def regrets(results: list[Result], mark: int) -> np.ndarray:
    """Return the incumbents' regrets at a mark, of the runs that reached it."""
    return np.array([Trace(result.steps).regret_at(mark) for result in results if result.total >= mark])


def table(results: list[Result]) -> list[str]:
    """Return lines of mean regret, standard error and number of runs at MARKS, for each problem and optimizer."""
    lines = [f"{'problem':<18}{'optimizer':<17}" + "".join(f"{f'{mark}x':>28}" for mark in MARKS)]
    for problem, optimizer in dict.fromkeys((result.problem, result.optimizer) for result in results):
        chosen = [result for result in results if (result.problem, result.optimizer) == (problem, optimizer)]
        lines.append(f"{problem:<18}{optimizer:<17}" + "".join(f"{_cell(regrets(chosen, mark)):>28}" for mark in MARKS))
    return lines


def _cell(values: np.ndarray) -> str:
    if not len(values):
        return "-"
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{values.mean():#.3g} +- {error:#.2g} ({len(values)})"


def savings(results: list[Result], optimizer: str = "bohb", baseline: str = "random") -> list[str]:
    """Return lines that say how much less budget `optimizer` needs for the baseline's mean regret at its end.

    The budget is where the mean over the seeds falls to that regret for the first time.
    """
    lines = []
    for problem in dict.fromkeys(result.problem for result in results):
        ours = [Trace(r.steps) for r in results if (r.problem, r.optimizer, r.total) == (problem, optimizer, TOTAL)]
        theirs = [Trace(r.steps) for r in results if (r.problem, r.optimizer, r.total) == (problem, baseline, TOTAL)]
        if not ours or not theirs:
            continue
        target = float(np.mean([trace.regret_at(MARKS[-1]) for trace in theirs]))
        costs = sorted({cost for trace in ours for cost, _ in trace.steps})
        reached = (cost for cost in costs if np.mean([trace.regret_at(cost) for trace in ours]) <= target)
        cost = next(reached, float("inf"))
        lines.append(
            f"{problem}: {baseline} at {MARKS[-1]}x has {target:.4f}; {optimizer} has it at {cost:.2f}x, "
            f"{MARKS[-1] / cost:.1f} times less."
        )
    return lines
