"""The run form's lists and maps as texts of a KatibSearchConfig: Experiment, space, settings, resources.

KFP passes lists and maps as JSON in which all numbers may be floats, so integers are restored: Katib and Kubernetes
reject ``parallelTrialCount: 2.0``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kondense.errors import InputError

RESOURCES = ("gpus", "accelerator", "cpu", "memory", "shared_memory", "node_selector", "tolerations")
SPACE = ("min", "max", "step")  # of a feasibleSpace; Katib requires texts

Value = int | float | str | bool


def config_texts(
    experiment: Mapping[str, Any],
    space: Sequence[Any],
    settings: Mapping[str, Any],
    resources: Mapping[str, Any],
) -> dict[str, Value]:
    """Return the fields of a KatibSearchConfig for lists and maps, without the empty ones.

    Args:
        experiment: a Katib Experiment.
        space: spec.parameters of an Experiment.
        settings: the algorithm's settings by name.
        resources: of a trial, by the names of ``RESOURCES``.

    Raises:
        ValueError: a value has another form, or a resource is unknown; the known ones are listed.
    """
    for name, value, kind in (("experiment", experiment, dict), ("space", space, list), ("settings", settings, dict)):
        if not isinstance(value, kind):
            raise InputError(f"{name} must be a {'list' if kind is list else 'map'}, but got {value!r}.")
    texts: dict[str, Value] = {}
    if experiment:
        texts["experiment"] = json.dumps(whole(experiment))
    if space:
        texts["space"] = json.dumps([_parameter(item) for item in space])
    if settings:
        texts["settings"] = json.dumps({key: _text(f"settings.{key}", value) for key, value in settings.items()})
    return texts | _resources(resources)


def whole(value: Any) -> Any:
    """Return JSON data with integral floats converted to ints."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


def _parameter(parameter: Any) -> dict[str, Any]:
    """Return a parameter of a space with its numbers as texts, as Katib requires."""
    if not isinstance(parameter, Mapping):
        raise InputError(f"space must be a list like spec.parameters of an Experiment, but contains {parameter!r}.")
    name, feasible = parameter.get("name"), parameter.get("feasibleSpace")
    if not isinstance(feasible, Mapping):
        raise InputError(f"every parameter of the space must have a feasibleSpace, but {name!r} has none.")
    where = f"space.{name}"
    texts: dict[str, Any] = {key: _text(f"{where}.{key}", feasible[key]) for key in SPACE if key in feasible}
    if isinstance(listed := feasible.get("list"), list):
        texts["list"] = [_text(f"{where}.list", item) for item in listed]
    return {**parameter, "feasibleSpace": {**feasible, **texts}}


def _resources(resources: Mapping[str, Any]) -> dict[str, Value]:
    if not isinstance(resources, dict):
        raise InputError(f"resources must be a map, but got {resources!r}.")
    for name in resources:
        if name not in RESOURCES:
            raise InputError(f"resources must be of {', '.join(RESOURCES)}, but got {name!r}.")
    read = {"gpus": _count, "node_selector": _labels, "tolerations": _joined}
    stated = {name: value for name, value in resources.items() if value is not None and value not in ({}, [])}
    return {name: read.get(name, _text)(f"resources.{name}", value) for name, value in stated.items()}


def _count(name: str, value: Any) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise InputError(f"{name} must be a whole number, but got {value!r}.")
    return int(value)


def _labels(name: str, value: Any) -> str:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must map labels to values, but got {value!r}.")
    return json.dumps({key: _text(f"{name}.{key}", item) for key, item in value.items()})


def _joined(name: str, value: Any) -> str:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{name} must be a list of texts such as key=value:NoSchedule, but got {value!r}.")
    return ",".join(value)


def _text(name: str, value: Any) -> str:
    """Return a text, number or Boolean as text: 4.0 is ``4``.

    Raises:
        ValueError: the value is none of these.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise InputError(f"{name} must be a text or a number, but got {value!r}.")
    return str(whole(value))
