"""An Experiment's trials as Katib reports them, and the choice among them.

With a resource only the trials at the maximum resource compete: Katib's own ``currentOptimalTrial`` mixes budgets. A
value that is not a finite number never counts.
"""

import contextlib
import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kondense.cluster.errors import ClusterError
from kondense.json_text import SHOWN
from kondense.katib_search.experiment import Plan
from kondense.search.history import Status
from kondense.search.numbers import number
from kondense.search.run import FAILURES, Search, TrialRecord
from kondense.search.state import UNFINISHED, VALUED

# Katib's conditions in their possible order; the last one that holds counts.
CONDITIONS = {
    "Created": Status.CREATED,
    "Running": Status.RUNNING,
    "Succeeded": Status.SUCCEEDED,
    "EarlyStopped": Status.EARLY_STOPPED,
    "MetricsUnavailable": Status.METRICS_UNAVAILABLE,
    "Killed": Status.KILLED,
    "Failed": Status.FAILED,
}


def read_trials(trials: Iterable[Mapping[str, Any]], plan: Plan) -> list[TrialRecord]:
    """Return the records of Trial objects, in order of creation; errors as in `read_trial`."""
    made = [(trial, read_trial(trial, plan)) for trial in trials]
    return [record for trial, record in sorted(made, key=lambda pair: (_created(pair[0]), pair[1].name))]


def read_trial(trial: Mapping[str, Any], plan: Plan) -> TrialRecord:
    """Return the record of a Trial object.

    Raises:
        ClusterError: it has not the form of kubeflow.org/v1beta1.
    """
    with _v1beta1("Trial", trial):
        return _record(trial, plan)


@contextlib.contextmanager
def _v1beta1(kind: str, item: object) -> Iterator[None]:
    """Raise ClusterError if the block does not find in an object what an object of this kind has."""
    try:
        yield
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        text = f"Katib's {kind} must have the form of kubeflow.org/v1beta1, but {ascii(item)[:SHOWN]} has not"
        raise ClusterError(f"{text} ({type(error).__name__}: {ascii(str(error))[:SHOWN]})") from None


def _record(trial: Mapping[str, Any], plan: Plan) -> TrialRecord:
    created = _created(trial)
    status = trial.get("status") or {}
    state, reason = _condition(status.get("conditions") or [])
    strategies = {item["name"]: item["value"] for item in plan.spec["objective"].get("metricStrategies") or []}
    default = {"minimize": "min", "maximize": "max"}[plan.search.goal]
    metrics = {
        item["name"]: str(item.get(strategies.get(item["name"], default), ""))
        for item in (status.get("observation") or {}).get("metrics") or []
    }
    return TrialRecord(
        name=_name(trial),
        assignments={item["name"]: str(item["value"]) for item in trial["spec"].get("parameterAssignments") or []},
        status=state,
        reason=reason if state in (*FAILURES, Status.KILLED) else "",
        value=number(metrics.get(plan.search.metric, "")) if state in VALUED else None,
        metrics=metrics,
        started=_time(status.get("startTime")),
        ended=None if state in UNFINISHED else _time(status.get("completionTime")) or created,
    )


def ended(experiment: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the end of an Experiment (Succeeded or Failed) and Katib's reason; None while it is running."""
    with _v1beta1("Experiment", experiment):
        for condition in (experiment.get("status") or {}).get("conditions") or []:
            if condition.get("type") in ("Succeeded", "Failed") and condition.get("status") == "True":
                return condition["type"], _message(condition)
    return None


def in_order_of_ending(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that have ended."""
    return sorted((trial for trial in trials if trial.finished), key=lambda trial: (trial.ended or 0.0, trial.name))


def best_trial(trials: Iterable[TrialRecord], search: Search) -> TrialRecord | None:
    """Return the best trial at the maximum resource; the first of equals."""
    return search.best(trial for trial in trials if search.resource(trial) == search.max_resource)


def _name(trial: Mapping[str, Any]) -> str:
    return str(trial["metadata"]["name"])


def _created(trial: Mapping[str, Any]) -> float:
    return _time(trial["metadata"].get("creationTimestamp")) or 0.0


def _condition(conditions: Sequence[Mapping[str, Any]]) -> tuple[Status, str]:
    """Return a trial's status and Katib's reason for it."""
    holding = {condition["type"]: condition for condition in conditions if condition.get("status") == "True"}
    for name in reversed(CONDITIONS):
        if name in holding:
            return CONDITIONS[name], _message(holding[name])
    return Status.CREATED, ""


def _message(condition: Mapping[str, Any]) -> str:
    return str(condition.get("message") or condition.get("reason") or "")


def _time(text: str | None) -> float | None:
    return datetime.datetime.fromisoformat(text).timestamp() if text else None
