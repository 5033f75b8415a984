"""What is wrong with a run's parameters, told before anything starts: the checks that the steps make, made here.

They are made with what the package itself says: a field that is fixed in it, or that a task's output decides, is not
taken from today's defaults.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from kondense.config import Config, check_choice
from kondense.errors import InputError
from kondense.katib_search.config import KatibSearchConfig
from kondense.networks.names import check_form
from kondense.profiles import settled
from kondense.renamed import FORM, refuse_old
from kondense.stages import STAGES, Stage, load

from kondense_pipelines.cluster.package import ContainerTask, Known, Package

ANYWHERE = "minio://bucket/dataset"  # stands for a data set that is not there yet
NETWORKS = ("network", "student_network")  # fields that hold a network's name
KINDS: Mapping[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "STRUCT": (dict,),
    "LIST": (list,),
}


def check_parameters(package: Package, parameters: Mapping[str, Any]) -> None:
    """Raise ValueError, in one line, for parameters with which a run of a package would fail.

    Args:
        package: the compiled pipeline.
        parameters: those that are given; the others have the package's defaults.
    """
    declared = package.parameters
    for name, value in parameters.items():
        refuse_old(FORM, {name} - set(declared))
        check_choice("the name of a parameter", name, tuple(declared))
        _check_type(name, value, declared[name]["parameterType"])
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
    """Return a choice as it is given; in a package every number is a float."""
    return int(literal) if isinstance(literal, float) and literal.is_integer() else literal


def _check_task(task: ContainerTask, stage: Stage) -> None:
    config, structures = stage.config_class, stage.structures
    fields = {field.name for field in dataclasses.fields(config)}
    flat = {name: each.value for name, each in task.known.items() if name in fields and _flat(each.value)}
    try:
        values = _settled(flat, task.known)
        if structures:
            known = {name: task.known[name].value for name in structures.inputs if name in task.known}
            values |= load(structures.reader)(**known)
        if fields & set(task.declared) <= set(task.known):
            _check_search(config(**values))
        else:
            _check_fields(config, values)
        for name in NETWORKS:
            if values.get(name):
                check_form(str(values[name]))
    except ValueError as error:
        raise InputError(f"{task.title}: {error}{_givers(str(error), task.known)}") from None


def _check_search(config: Config) -> None:
    """Check the rules of the Experiment that a search would make; other steps have no more rules than their Config."""
    if isinstance(config, KatibSearchConfig):
        from kondense.katib_search.experiment import build_plan

        build_plan(config, dataset_uri=config.dataset_uri or ANYWHERE, environment={})


def _flat(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _settled(values: dict[str, Any], known: Mapping[str, Known]) -> dict[str, Any]:
    """Return the values with those that are the profile's taken from it, as the component does it."""
    if "profile" not in known or "step" not in known:
        return values
    return settled(values, str(known["profile"].value), str(known["step"].value))


def _check_fields(config: type[Config], values: Mapping[str, Any]) -> None:
    """Check each field by itself: rules between fields cannot be held against values that a task's output decides."""
    bare = object.__new__(config)
    for field in dataclasses.fields(config):
        object.__setattr__(bare, field.name, values.get(field.name, field.default))
    Config.__post_init__(bare)


def _givers(error: str, known: Mapping[str, Known]) -> str:
    """Return which parameters give the fields that an error names, where their names differ."""
    told = [
        f"{each.parameter} gives {name}"
        for name, each in known.items()
        if each.parameter not in ("", name) and re.search(rf"\b{name}\b", error)
    ]
    return f" ({', '.join(told)})" if told else ""
