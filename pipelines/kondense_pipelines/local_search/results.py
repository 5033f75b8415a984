"""``results.json`` of a local run: everything the page shows, written whole or not at all."""

from pathlib import Path
from typing import Any

from kondense.files import write_json
from kondense.search.hyperband import read_plan
from kondense.search.ledger import identity
from kondense.search.space import SearchSpace

from kondense_pipelines.local_search.state import Outcome, State, TrialRecord

FORMAT_VERSION = 1


def write(path: Path, state: State, outcome: Outcome, reason: str) -> None:
    """Write the results as they stand."""
    write_json(path, summary(state, outcome, reason))


def summary(state: State, outcome: Outcome, reason: str) -> dict[str, Any]:
    """Return the results as JSON data.

    ``resource`` of a trial is in the unit of its parameter; ``seconds`` is wall time. ``finished`` lists the trials
    in order of ending with the resource spent so far (what the trials were given; a promoted trial that resumes
    costs less) and the incumbent: the best trial at the largest resource reached by then.
    """
    experiment = state.experiment
    best = state.best()
    maximum = _maximum_resource(state)
    return {
        "format_version": FORMAT_VERSION,
        "experiment": experiment.name,
        "algorithm": experiment.algorithm,
        "settings": dict(experiment.settings),
        "objective": {
            "metric": experiment.objective.metric,
            "type": "maximize" if experiment.objective.maximize else "minimize",
            "goal": experiment.objective.goal,
            "additional": list(experiment.objective.additional),
        },
        "max_trials": experiment.max_trials,
        "outcome": outcome.value,
        "reason": reason,
        "resource": {"name": state.resource_name, "maximum": maximum} if state.resource_name else None,
        "parameters": [dict(parameter) for parameter in experiment.parameters],
        "best": None if best is None else _best(state, best, maximum),
        "baseline": None if state.baseline is None else _trial(state, state.baseline),
        "trials": [_trial(state, record) for record in state.trials.values()],
        "finished": _progress(state),
    }


def _best(state: State, record: TrialRecord, maximum: float | None) -> dict[str, Any]:
    return {
        **_trial(state, record),
        "at_maximum_resource": maximum is None or state.resource(record) == maximum,
    }


def _trial(state: State, record: TrialRecord) -> dict[str, Any]:
    named = identity(record.name)
    return {
        "name": record.name,
        "status": record.status.value,
        "reason": record.reason,
        "value": record.value,
        "metrics": dict(record.metrics),
        "assignments": dict(record.assignments),
        "bracket": named.bracket if named else None,
        "rung": named.rung if named else None,
        "config": named.config if named else None,
        "resource": state.resource(record),
        "started": record.started,
        "seconds": None if record.seconds is None else round(record.seconds, 3),
    }


def _progress(state: State) -> list[dict[str, Any]]:
    """Return, per finished trial, the resource spent so far (trials, if there is none) and the incumbent."""
    spent, progress = 0.0, []
    incumbent: TrialRecord | None = None
    for name in state.finished:
        spent += state.resource(state.trials[name]) or 1.0
        incumbent = state.best([name] if incumbent is None else [incumbent.name, name])
        progress.append({"name": name, "spent": spent, "incumbent": incumbent.name if incumbent else None})
    return progress


def _maximum_resource(state: State) -> float | None:
    """Return what the highest rung gives a trial; None for a search without a resource."""
    if not state.resource_name:
        return None
    plan, _ = read_plan(SearchSpace.from_katib(state.experiment.parameters), state.settings)
    return float(plan.max_resource)
