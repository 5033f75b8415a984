"""What Katib tells of an Experiment and its trials, and the choice among them.

Of a search with a resource only the trials at the maximum resource compete: Katib's own ``currentOptimalTrial`` mixes
budgets. A value that is no finite number never counts.
"""

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

from kondense.katib_search.experiment import Plan
from kondense.search.history import Status
from kondense.search.ledger import identity

FORMAT_VERSION = 1
FAILURES = (Status.FAILED, Status.METRICS_UNAVAILABLE)
UNFINISHED = (Status.CREATED, Status.RUNNING)
# Katib's conditions in the order in which a trial may get them; the last one that holds counts.
CONDITIONS = {
    "Created": Status.CREATED,
    "Running": Status.RUNNING,
    "Succeeded": Status.SUCCEEDED,
    "EarlyStopped": Status.EARLY_STOPPED,
    "MetricsUnavailable": Status.METRICS_UNAVAILABLE,
    "Killed": Status.KILLED,
    "Failed": Status.FAILED,
}


@dataclasses.dataclass(frozen=True)
class TrialView:
    """One trial as Katib reports it; times are seconds since 1970."""

    name: str
    assignments: Mapping[str, str]
    status: Status
    reason: str
    value: float | None
    metrics: Mapping[str, str]
    resource: float | None
    created: float
    started: float | None
    ended: float | None

    @property
    def finished(self) -> bool:
        """Whether the trial has ended."""
        return self.status not in UNFINISHED

    @property
    def seconds(self) -> float | None:
        """How long it ran."""
        return None if self.started is None or self.ended is None else self.ended - self.started


def read_trial(trial: Mapping[str, Any], plan: Plan) -> TrialView:
    """Return a Trial object's view."""
    status = trial.get("status") or {}
    assignments = {item["name"]: str(item["value"]) for item in trial["spec"].get("parameterAssignments") or []}
    state, reason = _condition(status.get("conditions") or [])
    strategies = {item["name"]: item["value"] for item in plan.spec["objective"].get("metricStrategies") or []}
    default = {"minimize": "min", "maximize": "max"}[plan.goal]
    metrics = {
        item["name"]: str(item.get(strategies.get(item["name"], default), ""))
        for item in (status.get("observation") or {}).get("metrics") or []
    }
    return TrialView(
        name=trial["metadata"]["name"],
        assignments=assignments,
        status=state,
        reason=reason if state in (*FAILURES, Status.KILLED) else "",
        value=finite(metrics.get(plan.metric, "")) if state in (Status.SUCCEEDED, Status.EARLY_STOPPED) else None,
        metrics=metrics,
        resource=finite(assignments.get(plan.resource_name, "")) if plan.resource_name else None,
        created=_time(trial["metadata"].get("creationTimestamp")) or 0.0,
        started=_time(status.get("startTime")),
        ended=_time(status.get("completionTime")) if state not in UNFINISHED else None,
    )


def ended(experiment: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return how an Experiment ended (Succeeded or Failed) and Katib's words for it; None while it runs."""
    for condition in (experiment.get("status") or {}).get("conditions") or []:
        if condition.get("type") in ("Succeeded", "Failed") and condition.get("status") == "True":
            return condition["type"], condition.get("message") or condition.get("reason") or ""
    return None


def best_trial(trials: Sequence[TrialView], plan: Plan, *, at_maximum: bool = True) -> TrialView | None:
    """Return the best trial: at the maximum resource, or while none has come so far, at the largest that has a value.

    Args:
        trials: in any order; the first created of equals wins.
        plan: says what is better, and the maximum resource.
        at_maximum: count only trials at the maximum resource.
    """
    known = [trial for trial in trials if trial.value is not None]
    if plan.max_resource is not None and known:
        most = plan.max_resource if at_maximum else max(trial.resource or 0.0 for trial in known)
        known = [trial for trial in known if trial.resource == most]
    sign = 1.0 if plan.goal == "minimize" else -1.0
    return min(known, key=lambda trial: (sign * (trial.value or 0.0), trial.created, trial.name), default=None)


def headline(trials: Sequence[TrialView], plan: Plan) -> str:
    """Return where the search stands in one line."""
    count = {status: sum(trial.status is status for trial in trials) for status in Status}
    finished = sum(trial.finished for trial in trials)
    parts = [f"{plan.name} ({plan.spec['algorithm']['algorithmName']}): {finished}/{plan.spec['maxTrialCount']} trials"]
    parts += [f"{count[Status.RUNNING]} running"] if count[Status.RUNNING] else []
    failed = sum(count[status] for status in FAILURES)
    parts += [f"{failed} failed"] if failed else []
    if best := best_trial(trials, plan, at_maximum=False):
        parts.append(f"best {plan.metric}={best.value:.6g}{_at(best, plan)}")
    return ", ".join(parts)


def trial_line(trial: TrialView, plan: Plan) -> str:
    """Return what became of a trial in one line."""
    words = [trial.name, trial.status.value.replace("_", " ")]
    words += [f"{plan.metric}={trial.value:.6g}{_at(trial, plan)}"] if trial.value is not None else []
    words += [f"in {trial.seconds:.0f} s"] if trial.seconds is not None else []
    words += [f"({trial.reason})"] if trial.reason else []
    return " ".join(words)


def summary(trials: Sequence[TrialView], plan: Plan, outcome: str, reason: str) -> dict[str, Any]:
    """Return the search as JSON data: what ``kondense search`` writes to results.json, and what ``page`` shows."""
    objective = plan.spec["objective"]
    best = best_trial(trials, plan, at_maximum=False)
    return {
        "format_version": FORMAT_VERSION,
        "experiment": plan.name,
        "algorithm": plan.spec["algorithm"]["algorithmName"],
        "settings": {item["name"]: item["value"] for item in plan.spec["algorithm"].get("algorithmSettings") or []},
        "objective": {
            "metric": plan.metric,
            "type": plan.goal,
            "goal": objective.get("goal"),
            "additional": list(objective.get("additionalMetricNames") or []),
        },
        "max_trials": plan.spec["maxTrialCount"],
        "outcome": outcome,
        "reason": reason,
        "resource": {"name": plan.resource_name, "maximum": plan.max_resource} if plan.resource_name else None,
        "parameters": [dict(parameter) for parameter in plan.spec["parameters"]],
        "best": _row(best) | {"at_maximum_resource": best.resource == plan.max_resource} if best else None,
        "baseline": None,
        "trials": [_row(trial) for trial in sorted(trials, key=lambda trial: (trial.created, trial.name))],
        "finished": _progress(trials, plan),
    }


def _row(trial: TrialView) -> dict[str, Any]:
    named = identity(trial.name)
    return {
        "name": trial.name,
        "status": trial.status.value,
        "reason": trial.reason,
        "value": trial.value,
        "metrics": dict(trial.metrics),
        "assignments": dict(trial.assignments),
        "bracket": named.bracket if named else None,
        "rung": named.rung if named else None,
        "config": named.config if named else None,
        "resource": trial.resource,
        "started": trial.started,
        "seconds": trial.seconds,
    }


def _progress(trials: Sequence[TrialView], plan: Plan) -> list[dict[str, Any]]:
    """Return, per finished trial in order of ending, the resource spent so far and the incumbent."""
    spent, progress, incumbent = 0.0, [], None
    finished = [trial for trial in trials if trial.finished]
    for trial in sorted(finished, key=lambda trial: (trial.ended or trial.created, trial.name)):
        spent += trial.resource or 1.0
        incumbent = best_trial([trial, *([incumbent] if incumbent else [])], plan, at_maximum=False)
        progress.append({"name": trial.name, "spent": spent, "incumbent": incumbent.name if incumbent else None})
    return progress


def _condition(conditions: Sequence[Mapping[str, Any]]) -> tuple[Status, str]:
    """Return a trial's status and the reason that Katib gives for it."""
    holding = {each["type"]: each for each in conditions if each.get("status") == "True"}
    for name in reversed(CONDITIONS):
        if name in holding:
            return CONDITIONS[name], holding[name].get("message") or holding[name].get("reason") or ""
    return Status.CREATED, ""


def _at(trial: TrialView, plan: Plan) -> str:
    return "" if trial.resource is None else f" at {trial.resource:g} {plan.resource_name}"


def finite(text: str) -> float | None:
    """Return the finite number that a reported text stands for, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _time(text: str | None) -> float | None:
    return datetime.datetime.fromisoformat(text).timestamp() if text else None
