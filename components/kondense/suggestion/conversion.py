"""Katib's request as an Experiment document and a history, and a suggestion as Katib's reply."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kondense.errors import InputError
from kondense.katib.api import messages
from kondense.search.history import Goal, Status, Suggestion, Trial
from kondense.search.memory import Memory
from kondense.search.numbers import number
from kondense.search.space import SearchSpace
from kondense.search.suggesters import is_multi_fidelity

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
GOALS: Mapping[int, Goal] = {messages.MINIMIZE: "minimize", messages.MAXIMIZE: "maximize"}
# Katib sends UNKNOWN for a condition that it has no name for, and a later Katib may send others: such a trial may still
# end with a value.
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

NONE: Mapping[str, float] = {}  # of all trials whose further metrics nobody needs
# By experiment and metrics: the trials of its last call by digests of their messages. Reading them anew takes longer
# than most suggestions. A larger experiment's are read anew each time, so that memory is bounded.
KNOWN = Memory[dict[bytes, Trial]](10_240)


def read_document(experiment: Any) -> dict[str, Any]:
    """Return an ``api.v1.beta1.Experiment`` in the form of Katib's YAML, with the fields of a search.

    Raises:
        ValueError: a parameter has no type.
    """
    spec = experiment.spec
    settings = [{"name": entry.name, "value": entry.value} for entry in spec.algorithm.algorithm_settings]
    stopping = spec.early_stopping.algorithm_name
    return {
        "metadata": {"name": experiment.name},
        "spec": {
            "objective": {
                "type": GOALS.get(spec.objective.type, str(spec.objective.type)),
                "objectiveMetricName": spec.objective.objective_metric_name,
                "additionalMetricNames": list(spec.objective.additional_metric_names),
            },
            "algorithm": {"algorithmName": spec.algorithm.algorithm_name, "algorithmSettings": settings},
            "earlyStopping": {"algorithmName": stopping} if stopping else None,
            "parameters": [_parameter(parameter) for parameter in spec.parameter_specs.parameters],
            "maxTrialCount": spec.max_trial_count or None,  # 0 means that it is not set
            "parallelTrialCount": spec.parallel_trial_count or None,
        },
    }


def check_stoppable(spec: Any) -> None:
    """Refuse early stopping beside brackets, which a local run offers (``curvestop``).

    Katib hands one rule to all trials of a request, and these start at different resources and are promoted to
    different ones, so that their reports number `start_step` do not compare.

    Raises:
        ValueError: the rule and the value.
    """
    stopping, algorithm = spec.early_stopping.algorithm_name, spec.algorithm.algorithm_name
    if stopping and is_multi_fidelity(algorithm):
        raise InputError(
            f"earlyStopping must be absent with {algorithm} on Katib, which has one rule for trials of all resources, "
            f"but got {stopping!r}."
        )


def read_trials(
    trials: Iterable[Any], experiment: str, space: SearchSpace, metric: str, others: Collection[str] = ()
) -> tuple[Trial, ...]:
    """Return ``api.v1.beta1.Trial`` messages with the value of the objective ``metric``, and of other metrics.

    A trial whose message is that of the experiment's last call, byte for byte, is the same object as then.
    """
    texts = {text: text for each in space.parameters for text in (each.name, *each.values)}
    wanted = (experiment, metric, tuple(others))
    known, found = KNOWN.get(wanted) or {}, dict[bytes, Trial]()
    result = []
    for message in trials:
        content = hashlib.blake2b(message.SerializeToString(), digest_size=16).digest()
        trial = known.get(content) or _trial(message, texts, metric, others)
        found[content] = trial
        result.append(trial)
    KNOWN.put(wanted, found, len(found))
    return tuple(result)


def _trial(trial: Any, texts: Mapping[str, str], metric: str, others: Collection[str]) -> Trial:
    """Return a message's trial; `texts` has each name and each choice once, instead of once per trial: memory."""
    known = texts.get
    return Trial(
        name=trial.name,
        assignments={
            known(entry.name, entry.name): known(value := entry.value, value)
            for entry in trial.spec.parameter_assignments.assignments
        },
        status=STATUSES.get(trial.status.condition, Status.CREATED),
        value=next((number(item.value) for item in trial.status.observation.metrics if item.name == metric), None),
        metrics=_numbers(trial.status.observation.metrics, others) if others else NONE,
    )


def _numbers(metrics: Iterable[Any], names: Collection[str]) -> dict[str, float]:
    found = {item.name: number(item.value) for item in metrics if item.name in names}
    return {name: value for name, value in found.items() if value is not None}


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
    if space.distribution not in DISTRIBUTIONS:
        known = ", ".join(dict.fromkeys(DISTRIBUTIONS.values()))
        raise InputError(f"distribution of {parameter.name!r} must be one of {known}, but got {space.distribution}.")
    feasible = {"min": space.min, "max": space.max, "step": space.step, "list": list(space.list)}
    return {
        "name": parameter.name,
        "parameterType": KINDS[parameter.parameter_type],
        "feasibleSpace": {
            **{key: value for key, value in feasible.items() if value},
            "distribution": DISTRIBUTIONS[space.distribution],
        },
    }
