"""`results.json` of a search, local or on a cluster: the data of its page."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kondense.search.ledger import identity
from kondense.search.pareto import hypervolume, nondominated
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
    the incumbent: the best trial at the largest resource reached by then. With several objectives an ended search has
    there the share of the hypervolume between the best and the worst values at the largest resource that the front
    dominated by then; `front` has the names of the trials on it, the best in the first objective first.

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
        "objectives": [{"metric": search.metric, "type": search.goal}, *_further(search)],
        "constraints": [str(each) for each in (search.goals.constraints if search.goals else ())],
        "front": [trial.name for trial in search.front(trials)],
        "feasible": best is not None and search.feasible(best),
        "pick": search.pick and {"rule": search.pick.text, "met": best is not None and search.is_picked(best)},
        "outcome": str(outcome),
        "reason": reason,
        "resource": {"name": search.resource_name, "maximum": search.max_resource} if search.resource_name else None,
        "parameters": [dict(parameter) for parameter in document["spec"]["parameters"]],
        "best": best and _row(search, best) | {"at_maximum_resource": search.resource(best) == search.max_resource},
        "baseline": baseline and _row(search, baseline),
        "trials": [_row(search, trial) for trial in trials],
        "finished": _progress(search, list(finished), ended=str(outcome) != Outcome.RUNNING),
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
        "feasible": search.feasible(trial),
        "started": trial.started,
        "seconds": None if trial.seconds is None else round(trial.seconds, 3),
    }


def _further(search: Search) -> list[dict[str, str]]:
    objectives = search.goals.objectives[1:] if search.goals else ()
    return [{"metric": each.metric, "type": each.goal} for each in objectives]


def _progress(search: Search, finished: Sequence[TrialRecord], *, ended: bool) -> list[dict[str, Any]]:
    """Return the resource spent so far (trials, without a resource) and the incumbent after each finished trial."""
    spent, progress = 0.0, []
    incumbent: TrialRecord | None = None
    volumes = _volumes(search, finished) if ended else {}
    for trial in finished:
        spent += search.resource(trial) or 1.0
        incumbent = search.best([*([incumbent] if incumbent else []), trial])
        entry = {"name": trial.name, "spent": spent, "incumbent": incumbent.name if incumbent else None}
        progress.append(entry | ({"hypervolume": volumes[trial.name]} if volumes else {}))
    return progress


def _volumes(search: Search, finished: Sequence[TrialRecord]) -> dict[str, float]:
    """Return the hypervolume after each trial by its name; nothing with one objective or fewer than two trials."""
    goals = search.goals
    if goals is None or len(goals.objectives) < 2:
        return {}
    width = len(goals.objectives)
    rows = {trial.name: goals.row(search.numbers(trial)) for trial in finished if trial.value is not None}
    largest = max((search.resource(trial) or 0.0 for trial in finished if trial.name in rows), default=0.0)
    counted = {t.name for t in finished if t.name in rows and (search.resource(t) or 0.0) == largest}
    counted = {name for name in counted if not any(math.isnan(loss) for loss in rows[name][:width])}
    if len(counted) < 2:
        return {}
    points = np.array([rows[name][:width] for name in counted])
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    found, front, volume = {}, np.empty((0, width)), 0.0
    for trial in finished:
        if trial.name in counted and all(excess <= 0 for excess in rows[trial.name][width:]):
            point = (np.array(rows[trial.name][:width]) - low) / span
            if not (front <= point).all(axis=1).any():
                front = np.concatenate([front, point[np.newaxis]])
                front = front[nondominated(front)]
                volume = hypervolume(front, np.ones(width))
        found[trial.name] = round(volume, 6)
    return found
