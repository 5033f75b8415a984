"""One call of the objective of `kd.search`, and what it returned."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kondense.errors import InputError
from kondense.search.goals import Goals

Objective = Callable[..., float | Mapping[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """The result of a call.

    Args:
        value: of the objective, of several the first; None if it is not a finite number.
        reason: of a missing value.
        error: what the objective raised.
        metrics: what an objective of several goals returned, as texts.
    """

    value: float | None
    reason: str = ""
    error: Exception | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)


def evaluate(objective: Objective, arguments: Mapping[str, Any], goals: Goals | None) -> Evaluation:
    """Return the evaluation of an objective; whatever it raises fails the trial.

    Args:
        objective: returns a number, or with goals a mapping that has a number for each of their metrics.
        arguments: its keyword arguments.
        goals: several objectives or constraints; None with one.
    """
    try:
        returned = objective(**arguments)
        metrics = {} if goals is None else _metrics(returned, goals)
        value = _number(returned) if goals is None else metrics[goals.objectives[0].metric]
    except Exception as error:
        return Evaluation(None, f"{type(error).__name__}: {error}", error)
    texts = {name: repr(number) for name, number in metrics.items()}
    if not math.isfinite(value):
        return Evaluation(None, f"the value must be finite, but is {value}", metrics=texts)
    missing = [name for name in (goals.metrics if goals else ()) if not math.isfinite(metrics[name])]
    reason = f"{missing[0]} must be finite, but is {metrics[missing[0]]}" if missing else ""
    return Evaluation(value, reason, metrics=texts)


def _metrics(returned: Any, goals: Goals) -> dict[str, float]:
    if not isinstance(returned, Mapping) or not set(goals.metrics) <= set(returned):
        names = ", ".join(goals.metrics)
        raise InputError(f"the objective must return numbers by the names {names}, but returned {returned!r}.")
    return {str(name): _number(number) for name, number in returned.items()}


def _number(returned: Any) -> float:
    try:
        return float(returned)
    except (TypeError, ValueError):
        raise InputError(f"the objective must return a number, but returned {returned!r}.") from None
