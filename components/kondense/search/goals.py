"""Several objectives and constraints: the algorithm settings `objectives` and `constraints`.

Katib knows one objective; further ones are among its additionalMetricNames, which a suggestion service receives with
every trial. It receives no annotations, and the webhook checks the settings' form only, so the settings say which of
the metrics are objectives and which bounds they must keep:

    objectives: minimize size_bytes, minimize latency_ms
    constraints: size_bytes <= 50000, validation_accuracy >= 0.9

Legend: N trials, M objectives, K constraints.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError
from kondense.search import pareto

Goal = Literal["minimize", "maximize"]
Sign = Literal["<=", ">="]

OBJECTIVES, CONSTRAINTS = "objectives", "constraints"
SETTINGS = {
    OBJECTIVES: "objectives after the Experiment's own: minimize METRIC or maximize METRIC, joined by commas",
    CONSTRAINTS: "bounds of metrics: METRIC <= NUMBER or METRIC >= NUMBER, joined by commas",
}
NAME = re.compile(r"[^\s,<>=]+")
OBJECTIVE = re.compile(r"(minimize|maximize)\s+([^\s,<>=]+)")
CONSTRAINT = re.compile(r"([^\s,<>=]+)\s*(<=|>=)\s*([^\s,<>=]+)")


@dataclass(frozen=True)
class Objective:
    """One metric to minimize or maximize."""

    metric: str
    goal: Goal = "minimize"

    def loss(self, value: float) -> float:
        """Return what is minimized."""
        return -value if self.goal == "maximize" else value


@dataclass(frozen=True)
class Constraint:
    """A bound of one metric."""

    metric: str
    sign: Sign
    bound: float

    def excess(self, value: float) -> float:
        """Return by how much a value breaks the bound; 0 or less if it keeps it."""
        return value - self.bound if self.sign == "<=" else self.bound - value

    def __str__(self) -> str:
        """Return the text that `read_constraint` reads."""
        return f"{self.metric} {self.sign} {self.bound:.12g}"


@dataclass(frozen=True)
class Goals:
    """The objectives, the Experiment's own first, and the constraints."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that they name, each once."""
        named = [*(each.metric for each in self.objectives), *(each.metric for each in self.constraints)]
        return tuple(dict.fromkeys(named))

    def row(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Return the losses and the excesses of a trial, [M + K]; NaN where it has no value."""
        losses = (each.loss(values.get(each.metric, math.nan)) for each in self.objectives)
        return (*losses, *(each.excess(values.get(each.metric, math.nan)) for each in self.constraints))

    def rows(self, columns: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the rows of trials, [N, M + K], from the values of each metric, [N], NaN where there is none."""
        losses = [columns[each.metric] * each.loss(1.0) for each in self.objectives]
        excesses = [
            (columns[each.metric] - each.bound) * (1.0 if each.sign == "<=" else -1.0) for each in self.constraints
        ]
        return np.stack([*losses, *excesses], axis=1)

    def losses(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one loss for each row [N, M + K] of trials that are compared with each other: its place, from 0.

        First those that keep the constraints, in the order of `pareto.order`; then the others by their excesses, each
        in proportion to its largest; then those that lack the value of a constraint. One that lacks the value of an
        objective has the loss infinity and changes nothing for the others.
        """
        count = len(self.objectives)
        points, excesses = rows[:, :count], rows[:, count:]
        whole = ~np.isnan(points).any(axis=1)
        unknown = whole & np.isnan(excesses).any(axis=1)
        feasible = whole & ~unknown & (excesses <= 0).all(axis=1)
        broken = np.flatnonzero(whole & ~unknown & ~feasible)
        places = np.full(len(rows), np.inf)
        groups = [_in_order(points, np.flatnonzero(feasible)), _by_excess(excesses, broken)]
        ordered = np.concatenate([*groups, _in_order(points, np.flatnonzero(unknown))])
        places[ordered] = np.arange(len(ordered))
        return places

    def front(self, trials: Sequence[Mapping[str, float]]) -> list[int]:
        """Return the numbers of the trials that no other one dominates, by their metrics; the best in the first first.

        Trials that break a constraint or lack a value do not count; if all that have the values of the objectives break
        one, it is the one that breaks them least. Empty only if none has these values.
        """
        if not trials:
            return []
        rows, width = np.array([self.row(values) for values in trials], np.float64), len(self.objectives)
        places = self.losses(rows)
        kept = np.flatnonzero(np.isfinite(places) & (rows[:, width:] <= 0).all(axis=1))
        if not kept.size:
            return [int(np.argmin(places))] if np.isfinite(places).any() else []
        front = kept[pareto.nondominated(rows[kept, :width])]
        return sorted(map(int, front), key=lambda number: tuple(rows[number, :width]))

    def feasible(self, values: Mapping[str, float]) -> bool:
        """Return whether a trial keeps every constraint; one without its value does not."""
        return all(each.excess(values.get(each.metric, math.nan)) <= 0 for each in self.constraints)


def _in_order(points: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    return index[pareto.order(points[index])] if len(index) else index


def _by_excess(excesses: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(index):
        return index
    over = np.maximum(excesses[index], 0)
    return index[np.argsort((over / np.maximum(over.max(axis=0), np.finfo(float).tiny)).sum(axis=1), kind="stable")]


def read_goals(settings: Mapping[str, str], metric: str, goal: Goal) -> Goals | None:
    """Return the goals of a search; None if it has one objective and no constraint.

    Args:
        settings: of the algorithm.
        metric: the Experiment's objective.
        goal: its direction.

    Raises:
        ValueError: a text has another form, or names an objective or a bound twice.
    """
    further = [_objective(text) for text in _parts(settings, OBJECTIVES)]
    constraints = [read_constraint(text, f"setting {CONSTRAINTS}") for text in _parts(settings, CONSTRAINTS)]
    if not further and not constraints:
        return None
    objectives = [Objective(metric, goal), *further]
    for number, objective in enumerate(objectives):
        if objective.metric in [other.metric for other in objectives[:number]]:
            again = "the Experiment's own objective" if objective.metric == metric else "named already"
            raise InputError(f"setting {OBJECTIVES} must name each metric once, but {objective.metric!r} is {again}.")
    for number, each in enumerate(constraints):
        if (each.metric, each.sign) in [(other.metric, other.sign) for other in constraints[:number]]:
            raise InputError(f"setting {CONSTRAINTS} must bound a metric once from each side, but got {each} again.")
    return Goals(tuple(objectives), tuple(constraints))


def all_goals(goals: Goals | None, goal: Goal = "minimize") -> Goals:
    """Return the goals, and for a search of one objective that one, without its name."""
    return goals if goals is not None else Goals((Objective("", goal),))


def check_reported(goals: Goals | None, reported: Collection[str]) -> None:
    """Check that trials report the metrics of the goals.

    Raises:
        ValueError: one is neither the Experiment's objective nor one of its additionalMetricNames.
    """
    for metric in goals.metrics if goals else ():
        if metric not in reported:
            among = goals is not None and metric in [each.metric for each in goals.objectives]
            raise InputError(
                f"setting {OBJECTIVES if among else CONSTRAINTS} must name metrics that trials report, "
                f"objectiveMetricName and additionalMetricNames ({', '.join(reported)}), but got {metric!r}."
            )


def read_constraint(text: str, what: str) -> Constraint:
    """Return the constraint in a text.

    Raises:
        ValueError: it has another form; `what` says whose it is.
    """
    match = CONSTRAINT.fullmatch(text)
    try:
        bound = float(match[3]) if match else math.nan
    except ValueError:
        bound = math.nan
    if match is None or not math.isfinite(bound):
        raise InputError(f"{what} must be METRIC <= NUMBER or METRIC >= NUMBER, joined by commas, but got {text!r}.")
    return Constraint(match[1], cast(Sign, match[2]), bound)


def _objective(text: str) -> Objective:
    match = OBJECTIVE.fullmatch(text)
    if match is None:
        raise InputError(
            f"setting {OBJECTIVES} must be minimize METRIC or maximize METRIC, joined by commas, but got {text!r}."
        )
    return Objective(match[2], cast(Goal, match[1]))


def _parts(settings: Mapping[str, str], name: str) -> list[str]:
    text = settings.get(name, "")
    return [part.strip() for part in text.split(",")] if text.strip() else []
