"""Checks of a run's parameters before it starts: those that its steps would make.

Values come from the package: a field that is fixed in it, or that the output of a task sets, does not have the default
of this version.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from kondense.config import Config, check_choice
from kondense.errors import InputError
from kondense.katib_search.config import KatibSearchConfig
from kondense.networks.names import check_form
from kondense.profiles import alternative
from kondense.renamed import FORM, refuse_old
from kondense.stages import STAGES, Stage, config_values

from kondense_pipelines.cluster.package import ContainerTask, Known, Package

ANYWHERE = "minio://bucket/dataset"  # in place of a data set that does not exist yet
NETWORKS = ("network", "student_network")  # fields with a network's name
KINDS: Mapping[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "STRUCT": (dict,),
    "LIST": (list,),
}


def check_parameters(package: Package, parameters: Mapping[str, Any]) -> None:
    """Raise InputError, in one line, for parameters with which a run of a package would fail.

    Args:
        package: the compiled pipeline.
        parameters: values by name; the others have the package's defaults.
    """
    declared = package.parameters
    for name, value in parameters.items():
        refuse_old(FORM, {name} - set(declared))
        check_choice("the name of a parameter", name, tuple(declared))
        _check_type(name, value, declared[name]["parameterType"])
        if value == [] and declared[name].get("defaultValue"):  # the step would take the compiled ones in its place
            raise InputError(f"{name} must have an item or more, but got []; without it the package's own are taken.")
        if literals := declared[name].get("literals"):
            check_choice(name, value, [_plain(each) for each in literals])
    for task in package.tasks(parameters):
        if task.function in STAGES:
            _check_task(task, STAGES[task.function])


def _check_type(name: str, value: Any, kind: str) -> None:
    allowed = KINDS.get(kind, (object,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise InputError(f"{name} must be {' or '.join(each.__name__ for each in allowed)}, but got {value!r}.")


def _plain(literal: Any) -> Any:
    """Return a choice as users write it; in a package every number is a float."""
    return int(literal) if isinstance(literal, float) and literal.is_integer() else literal


def _check_task(task: ContainerTask, stage: Stage) -> None:
    config = stage.config_class
    fields = {field.name for field in dataclasses.fields(config)}
    try:
        values = config_values(stage, {name: known.value for name, known in task.known.items()})
        if fields & set(task.declared) <= set(task.known):
            _check_search(config(**values))
        else:
            _check_fields(config, values)
        for name in NETWORKS:
            if values.get(name):
                check_form(str(values[name]))
    except ValueError as error:
        text = f"{error}{alternative(str(task.known['step'].value), str(error)) if 'step' in task.known else ''}"
        raise InputError(f"{task.title}: {text}{_givers(text, task.known)}") from None


def _check_search(config: Config) -> None:
    """Check the rules of the Experiment that a search would create; other steps have the rules of their Config only."""
    if isinstance(config, KatibSearchConfig):
        from kondense.katib_search.experiment import build_plan

        build_plan(config, dataset_uri=config.dataset_uri or ANYWHERE, environment={})


def _check_fields(config: type[Config], values: Mapping[str, Any]) -> None:
    """Check each field alone: rules between fields cannot be checked if the output of a task sets one of them."""
    bare = object.__new__(config)
    for field in dataclasses.fields(config):
        object.__setattr__(bare, field.name, values.get(field.name, field.default))
    Config.__post_init__(bare)


def _givers(error: str, known: Mapping[str, Known]) -> str:
    """Return the parameters that set the fields that an error names, if their names differ."""
    givers = [
        f"{value.parameter} gives {name}"
        for name, value in known.items()
        if value.parameter not in ("", name) and re.search(rf"\b{name}\b", error)
    ]
    return f" ({', '.join(givers)})" if givers else ""
