"""`results.json` of a search, local or on a cluster: the data of its page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kondense.search.ledger import identity
from kondense.search.run import Outcome, Search, TrialRecord

FORMAT_VERSION = 1


def summary(
    document: Mapping[str, Any],
    search: Search,
    trials: Sequence[TrialRecord],
    *,
    outcome: Outcome | str,
    reason: str,
    best: TrialRecord | None,
    finished: Iterable[TrialRecord],
    baseline: TrialRecord | None = None,
) -> dict[str, Any]:
    """Return the results as JSON data.

    The resource of a trial is in the unit of its parameter, `seconds` is wall time. `finished` lists the trials in
    order of ending with the resource spent so far (the trials' resources; a promoted trial that resumes costs less) and
    the incumbent: the best trial at the largest resource reached by then.

    Args:
        document: the Experiment.
        search: the search in it.
        trials: all trials.
        outcome: state of the search.
        reason: of the outcome.
        best: the best trial.
        finished: the trials that have ended, in order of ending.
        baseline: a trial outside of the search.
    """
    return {
        "format_version": FORMAT_VERSION,
        "experiment": search.name,
        "algorithm": search.algorithm,
        "settings": dict(search.settings),
        "objective": {
            "metric": search.metric,
            "type": search.goal,
            "goal": search.target,
            "additional": list(document["spec"]["objective"].get("additionalMetricNames") or []),
        },
        "max_trials": search.max_trials,
        "outcome": str(outcome),
        "reason": reason,
        "resource": {"name": search.resource_name, "maximum": search.max_resource} if search.resource_name else None,
        "parameters": [dict(parameter) for parameter in document["spec"]["parameters"]],
        "best": best and _row(search, best) | {"at_maximum_resource": search.resource(best) == search.max_resource},
        "baseline": baseline and _row(search, baseline),
        "trials": [_row(search, trial) for trial in trials],
        "finished": _progress(search, finished),
    }


def _row(search: Search, trial: TrialRecord) -> dict[str, Any]:
    issued = identity(trial.name)
    return {
        "name": trial.name,
        "status": trial.status.value,
        "reason": trial.reason,
        "value": trial.value,
        "metrics": dict(trial.metrics),
        "curve": list(trial.curve),
        "parent": trial.parent or None,
        "assignments": dict(trial.assignments),
        "bracket": issued.bracket if issued else None,
        "rung": issued.rung if issued else None,
        "config": issued.config if issued else None,
        "resource": search.resource(trial),
        "started": trial.started,
        "seconds": None if trial.seconds is None else round(trial.seconds, 3),
    }


def _progress(search: Search, finished: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """Return the resource spent so far (trials, without a resource) and the incumbent after each finished trial."""
    spent, progress = 0.0, []
    incumbent: TrialRecord | None = None
    for trial in finished:
        spent += search.resource(trial) or 1.0
        incumbent = search.best([*([incumbent] if incumbent else []), trial])
        progress.append({"name": trial.name, "spent": spent, "incumbent": incumbent.name if incumbent else None})
    return progress
