"""Katib's request in the terms of ``kondense.search``, and its proposals as Katib's reply."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kondense.errors import InputError
from kondense.katib.api import messages
from kondense.search.history import History, Status, Suggestion, Trial
from kondense.search.ledger import SETTING
from kondense.search.space import SearchSpace
from kondense.search.suggesters import SUGGESTERS, Suggester, load_suggester

KINDS = {
    messages.DOUBLE: "double",
    messages.INT: "int",
    messages.DISCRETE: "discrete",
    messages.CATEGORICAL: "categorical",
}
DISTRIBUTIONS = {
    messages.DISTRIBUTION_UNSPECIFIED: "uniform",
    messages.UNIFORM: "uniform",
    messages.LOG_UNIFORM: "logUniform",
    messages.NORMAL: "normal",
    messages.LOG_NORMAL: "logNormal",
}
# Katib sends UNKNOWN for a condition it has no name for; the trial may still end with a value.
STATUSES = {
    messages.TrialStatus.CREATED: Status.CREATED,
    messages.TrialStatus.RUNNING: Status.RUNNING,
    messages.TrialStatus.SUCCEEDED: Status.SUCCEEDED,
    messages.TrialStatus.KILLED: Status.KILLED,
    messages.TrialStatus.FAILED: Status.FAILED,
    messages.TrialStatus.METRICSUNAVAILABLE: Status.METRICS_UNAVAILABLE,
    messages.TrialStatus.EARLYSTOPPED: Status.EARLY_STOPPED,
    messages.TrialStatus.UNKNOWN: Status.CREATED,
}
# Median stopping compares trials of different resources with each other.
WITHOUT_EARLY_STOPPING = ("hyperband", "bohb")


@dataclass(frozen=True)
class Search:
    """What an Experiment asks for: the method, its space and its settings."""

    algorithm: str
    suggester: Suggester
    space: SearchSpace
    settings: Mapping[str, str]
    max_trial_count: int | None
    parallel_trial_count: int | None

    def validate(self) -> None:
        """Raise a ValueError that gives rule and value if the search breaks a rule."""
        self.suggester.validate(
            self.space,
            self.settings,
            max_trial_count=self.max_trial_count,
            parallel_trial_count=self.parallel_trial_count,
        )


def read_search(experiment: Any) -> Search:
    """Return the search of an ``api.v1.beta1.Experiment``.

    Raises:
        ValueError: a rule is broken; the text gives the rule and the value.
    """
    spec = experiment.spec
    algorithm = spec.algorithm.algorithm_name
    if algorithm not in SUGGESTERS:
        raise InputError(f"algorithmName must be one of {', '.join(sorted(SUGGESTERS))}, but got {algorithm!r}.")
    if spec.early_stopping.algorithm_name and algorithm in WITHOUT_EARLY_STOPPING:
        raise InputError(
            f"earlyStopping must be absent with {algorithm}, which stops trials itself, "
            f"but got {spec.early_stopping.algorithm_name!r}."
        )
    return Search(
        algorithm=algorithm,
        suggester=load_suggester(algorithm),
        space=SearchSpace.from_katib([_parameter(parameter) for parameter in spec.parameter_specs.parameters]),
        settings=_settings(spec.algorithm.algorithm_settings),
        max_trial_count=spec.max_trial_count or None,  # 0 is Katib's word for not set
        parallel_trial_count=spec.parallel_trial_count or None,
    )


def read_history(experiment: Any, trials: Iterable[Any]) -> History:
    """Return what is known of an experiment: its trials, and its ledger from the settings.

    Raises:
        ValueError: the objective's type is unknown, or the experiment's name is too long.
    """
    objective = experiment.spec.objective
    if objective.type not in (messages.MINIMIZE, messages.MAXIMIZE):
        raise InputError(f"objective type must be minimize or maximize, but got {objective.type}.")
    metric = objective.objective_metric_name
    return History(
        trials=tuple(_trial(trial, metric) for trial in trials),
        issued=_settings(experiment.spec.algorithm.algorithm_settings).get(SETTING, ""),
        goal="maximize" if objective.type == messages.MAXIMIZE else "minimize",
        experiment=experiment.name,
        max_trials=experiment.spec.max_trial_count or None,  # 0 is Katib's word for not set
    )


def write_reply(algorithm: str, suggestion: Suggestion) -> Any:
    """Return an ``api.v1.beta1.GetSuggestionsReply``."""
    reply = messages.GetSuggestionsReply()
    for proposal in suggestion.proposals:
        entry = reply.parameter_assignments.add(trial_name=proposal.name, labels=dict(proposal.labels))
        for name, value in proposal.assignments.items():
            entry.assignments.add(name=name, value=value)
    reply.algorithm.algorithm_name = algorithm
    for name, value in suggestion.settings.items():
        reply.algorithm.algorithm_settings.add(name=name, value=value)
    return reply


def _parameter(parameter: Any) -> dict[str, Any]:
    space = parameter.feasible_space
    if parameter.parameter_type not in KINDS:
        kinds = ", ".join(KINDS.values())
        raise InputError(
            f"parameterType of {parameter.name!r} must be one of {kinds}, but got {parameter.parameter_type}."
        )
    feasible = {"min": space.min, "max": space.max, "step": space.step, "list": list(space.list)}
    stated = {key: value for key, value in feasible.items() if value}
    return {
        "name": parameter.name,
        "parameterType": KINDS[parameter.parameter_type],
        "feasibleSpace": {**stated, "distribution": DISTRIBUTIONS[space.distribution]},
    }


def _settings(entries: Iterable[Any]) -> dict[str, str]:
    return {entry.name: entry.value for entry in entries}


def _trial(trial: Any, metric: str) -> Trial:
    status = trial.status
    return Trial(
        name=trial.name,
        assignments={entry.name: entry.value for entry in trial.spec.parameter_assignments.assignments},
        status=STATUSES[status.condition],
        value=_value(status.observation.metrics, metric),
    )


def _value(metrics: Iterable[Any], metric: str) -> float | None:
    """Return the objective's value; None if it is absent, empty (how Katib reports a nan) or not finite."""
    for entry in metrics:
        if entry.name == metric:
            try:
                value = float(entry.value)
            except ValueError:
                return None
            return value if math.isfinite(value) else None
    return None
