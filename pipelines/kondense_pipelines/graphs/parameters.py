"""The parameters of the pipelines: their steps' Configs, and those that the run form shows.

A *step* is a stage with default values of its own: ``prune`` and ``prune_weights`` are both the prune stage. Every
field of every step can be set when a pipeline is compiled (``--set``). Those in ``CURATED`` are parameters of the
compiled pipeline; the form sorts them, so related ones begin with the same word.
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from kondense import recipes
from kondense.config import Config, check_choice, parse
from kondense.errors import InputError, meant
from kondense.networks.names import check_form
from kondense.profiles import AS_PROFILE, DEFAULT_PROFILE, PROFILES, Value
from kondense.recipes import Step
from kondense.renamed import STEP, refuse_old
from kondense.stages import STAGES

from kondense_pipelines.graphs.run_form import Parameter, field_parameter

SEARCH_STEP = "katib_search"
SEARCH_CONFIG = STAGES["katib_search"].config_class
SEARCH_FIELDS = {"earlier", "max_failed_trials", "namespace", "store_uri", "patience_minutes", "poll_seconds", "ui"}

TRAIN_JOB = "train_job"  # of several nodes, in the place of train
NODE_FIELDS = {
    "nodes",
    "runtime",
    "runtime_kind",
    "job_name",
    "namespace",
    "store_uri",
    "image",
    "patience_minutes",
    "poll_seconds",
}

Values = Mapping[str, Mapping[str, Value]]  # by step and field

STEPS: Mapping[str, Step] = {
    "data_prep": Step("data_prep"),
    "train": Step("train"),
    # With more than one node. The step train, the resources and the graph set its other fields.
    TRAIN_JOB: Step(
        TRAIN_JOB, {"nodes": 1}, owned=tuple(set(STAGES[TRAIN_JOB].config_class.__dataclass_fields__) - NODE_FIELDS)
    ),
    **recipes.STEPS,
    "evaluate": Step("evaluate", owned=("name",)),
    "report": Step("report"),
    "publish": Step("publish"),
    "verdict": Step("verdict"),
    # Of the search pipeline only; the form and the graph set its other fields.
    SEARCH_STEP: Step("katib_search", owned=tuple(set(SEARCH_CONFIG.__dataclass_fields__) - SEARCH_FIELDS)),
}

# The run form's parameters -> the fields that they set. The first one gives type, default, range and description.
CURATED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "dataset": (("data_prep", "dataset_name"),),
    "dataset_channels": (("data_prep", "channels"),),
    "dataset_image_size": (("data_prep", "image_size"),),
    "dataset_source": (("data_prep", "source"),),
    "network": (("train", "network"),),
    "network_import_uri": (("train", "import_uri"),),
    "publish_name": (("publish", "model_name"),),
    "quantize_method": (("quantize", "method"),),
    "report_max_drop": (("report", "max_validation_drop"), ("publish", "max_test_drop")),
    "report_objective": (("report", "objective"),),
    "seed": tuple(
        (step, "seed")
        for step in STEPS
        if "seed" in STEPS[step].config.__dataclass_fields__ and "seed" not in STEPS[step].owned
    ),
    "train_epochs": (("train", "epochs"),),
}
NETWORK_FIELDS = (("train", "network"), ("distill", "student_network"))  # by step and field
DESCRIPTIONS = {  # of parameters that set more than one field
    "report_max_drop": "fraction by which accuracy may be below the teacher's: validation accuracy for the report's"
    " choice, test accuracy for publication",
    "seed": "seed of all randomness, in every step",
}
PROFILE = "profile"  # a further parameter: it sets the fields that are AS_PROFILE


def form(names: Iterable[str], arguments: Mapping[str, Any]) -> dict[str, Parameter]:
    """Return parameters of the run form, made from the Configs' fields.

    Args:
        names: of ``CURATED``, and ``PROFILE``.
        arguments: their defaults.
    """
    parameters = {}
    for name in names:
        if name == PROFILE:
            text = "amount of training: quick runs every method in minutes, full gives the best results; it sets epochs"
            parameters[name] = Parameter(str, arguments.get(name, DEFAULT_PROFILE), text, tuple(PROFILES))
            continue
        step, field = CURATED[name][0]
        parameter = field_parameter(STEPS[step].config, field, arguments[name], DESCRIPTIONS.get(name, ""))
        if arguments[name] == AS_PROFILE:
            description = f"{parameter.description}; {AS_PROFILE}: the number of the profile"
            parameter = dataclasses.replace(parameter, description=description)
        parameters[name] = parameter
    return parameters


def step_defaults(step: str) -> dict[str, Value]:
    """Return every field of ``step`` that can be set, with its default."""
    settings = STEPS[step]
    values = settings.config(**settings.defaults).to_dict()
    return {name: value for name, value in values.items() if name not in settings.owned}


def read_settings(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Read ``step.field=value`` texts; the last one of a field counts.

    Raises:
        InputError: another form, or an unknown step or field; the text lists the known ones.
    """
    settings: dict[str, dict[str, str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        step, dot, field = key.strip().partition(".")
        if not equals or not dot:
            raise InputError(f"--set must be step.field=value, but got {text!r}.")
        refuse_old(STEP, [step])
        if step not in STEPS:
            raise InputError(f"--set knows the steps {', '.join(STEPS)}, but got {step!r}{meant(step, STEPS)}.")
        refuse_old(STEPS[step].config.__name__, [field])
        if field in STEPS[step].owned:
            raise InputError(f"--set cannot change {key.strip()}: the pipeline sets it itself.")
        if field not in step_defaults(step):
            names = sorted(step_defaults(step))
            question = meant(field, names)
            raise InputError(f"--set knows these fields of {step}: {', '.join(names)}; but got {field!r}{question}.")
        settings.setdefault(step, {})[field] = value
    return settings


def resolve(
    profile: str, plain: Mapping[str, Value | None] | None = None, settings: Iterable[str] = ()
) -> dict[str, Config]:
    """Return the checked Config of every step.

    Args:
        profile: the name of a profile, whose overrides come first.
        plain: values of curated parameters, such as ``dataset``; None keeps the default.
        settings: ``step.field=value`` texts, which outweigh everything else.

    Raises:
        InputError: an unknown profile, parameter, step or field, or a value out of its range.
    """
    check_choice("profile", profile, tuple(PROFILES))
    values: dict[str, dict[str, Any]] = {step: dict(STEPS[step].defaults) for step in STEPS}
    for step, overrides in PROFILES[profile].items():
        values[step].update(overrides)
    for name, value in (plain or {}).items():
        check_choice("parameter", name, tuple(CURATED))
        for step, field in CURATED[name] if value is not None else ():
            values[step][field] = value
    configs: dict[str, Config] = {}
    texts = read_settings(settings)
    for step in STEPS:
        try:
            hints = typing.get_type_hints(STEPS[step].config)
            stated = {name: parse(name, hints[name], text) for name, text in texts.get(step, {}).items()}
            shared = configs["train"].to_dict() if step == TRAIN_JOB else {}
            configs[step] = STEPS[step].config(**shared | values[step] | stated)
        except ValueError as error:
            raise InputError(f"{step}: {error}") from None
    check_networks(configs)
    return configs


def check_networks(configs: Mapping[str, Config]) -> None:
    """Raise InputError, listing the built-in networks, for a name that cannot be a network's."""
    check_form(str(configs["train"].to_dict()["network"]))
    if student := str(configs["distill"].to_dict()["student_network"]):
        check_form(student)


def split(
    configs: Mapping[str, Config], profile: str | None = None, settings: Iterable[str] = ()
) -> tuple[dict[str, Value], dict[str, dict[str, Value]]]:
    """Split the steps' Configs into defaults of the run form and values that are bound when a pipeline is compiled.

    Args:
        configs: of every step.
        profile: the numbers that the Configs have from this profile are left to the profile that a run chooses; None
            binds them, as for a run on this machine.
        settings: ``step.field=value`` texts; the fields that they set are bound in any case.
    """
    stated = read_settings(settings)
    values = {step: config.to_dict() for step, config in configs.items()}

    def left(step: str, name: str) -> bool:
        return name not in stated.get(step, {}) and values[step][name] == PROFILES[profile or ""][step][name]

    for step, fields in PROFILES[profile].items() if profile else ():
        kinds = {name: type(value) for name, value in values[step].items()}  # KFP tells int from float
        values[step] |= {name: kinds[name](AS_PROFILE) for name in fields if left(step, name)}
    arguments = {name: values[targets[0][0]][targets[0][1]] for name, targets in CURATED.items()}
    effective = apply(arguments)
    bound: dict[str, dict[str, Value]] = {}
    for step, fields in effective.items():
        for field, value in fields.items():
            if values[step][field] != value:
                bound.setdefault(step, {})[field] = values[step][field]
    return arguments | {PROFILE: profile or DEFAULT_PROFILE}, bound


def apply(arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every step's fields, with the values of the pipeline's parameters in the fields of ``CURATED``."""
    values: dict[str, dict[str, Any]] = {step: step_defaults(step) for step in STEPS}
    for name, targets in CURATED.items():
        for step, field in targets:
            values[step][field] = arguments[name]
    return values


def step_arguments(bound: Values, parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments of every step's component.

    Args:
        bound: values fixed at compile time, by step and field.
        parameters: the run form's parameters by name; others are ignored.
    """
    values = apply(parameters)
    for step, fields in bound.items():
        values[step].update(fields)
    for step in PROFILES[DEFAULT_PROFILE]:
        values[step] |= {PROFILE: parameters[PROFILE], "step": step}
    return values
