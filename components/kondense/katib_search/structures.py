"""The run form's structures as the texts of a KatibSearchConfig: Experiment, space, settings, resources.

KFP hands lists and maps over as JSON whose numbers may all be floats, so whole ones become ints again: Katib and
Kubernetes refuse ``parallelTrialCount: 2.0``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kondense.errors import InputError

RESOURCES = ("gpus", "accelerator", "cpu", "memory", "shared_memory", "node_selector", "tolerations")
SPACE = ("min", "max", "step")  # of a feasibleSpace, which Katib wants as texts

Value = int | float | str | bool


def config_texts(
    experiment: Mapping[str, Any],
    space: Sequence[Any],
    settings: Mapping[str, Any],
    resources: Mapping[str, Any],
) -> dict[str, Value]:
    """Return the fields of a KatibSearchConfig that the structures stand for; what is empty is left out.

    Args:
        experiment: a Katib Experiment.
        space: spec.parameters of an Experiment.
        settings: the algorithm's settings by name.
        resources: what a trial gets, by the names of ``RESOURCES``.

    Raises:
        ValueError: a structure of another form, or an unknown resource; the right ones are listed.
    """
    for name, value, kind in (("experiment", experiment, dict), ("space", space, list), ("settings", settings, dict)):
        if not isinstance(value, kind):
            raise InputError(f"{name} must be a {'list' if kind is list else 'map'}, but got {value!r}.")
    texts: dict[str, Value] = {}
    if experiment:
        texts["experiment"] = json.dumps(whole(experiment))
    if space:
        texts["space"] = json.dumps([_parameter(each) for each in space])
    if settings:
        texts["settings"] = json.dumps({key: _text(f"settings.{key}", value) for key, value in settings.items()})
    return texts | _resources(resources)


def whole(value: Any) -> Any:
    """Return JSON data with ints in the place of whole floats."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: whole(each) for key, each in value.items()}
    return [whole(each) for each in value] if isinstance(value, list) else value


def _parameter(given: Any) -> dict[str, Any]:
    """Return a parameter of a space with its numbers as texts, as Katib wants them."""
    if not isinstance(given, Mapping):
        raise InputError(f"space must be a list like spec.parameters of an Experiment, but holds {given!r}.")
    feasible = given.get("feasibleSpace")
    if not isinstance(feasible, Mapping):
        raise InputError(f"every parameter of the space must have a feasibleSpace, but {given.get('name')!r} has none.")
    where = f"space.{given.get('name')}"
    texts = {key: _text(f"{where}.{key}", feasible[key]) for key in SPACE if key in feasible}
    if isinstance(listed := feasible.get("list"), list):
        texts["list"] = [_text(f"{where}.list", each) for each in listed]
    return {**given, "feasibleSpace": {**feasible, **texts}}


def _resources(given: Mapping[str, Any]) -> dict[str, Value]:
    if not isinstance(given, dict):
        raise InputError(f"resources must be a map, but got {given!r}.")
    for name in given:
        if name not in RESOURCES:
            raise InputError(f"resources must be of {', '.join(RESOURCES)}, but got {name!r}.")
    read = {"gpus": _count, "node_selector": _labels, "tolerations": _joined}
    stated = {name: value for name, value in given.items() if value is not None and value not in ({}, [])}
    return {name: read.get(name, _text)(f"resources.{name}", value) for name, value in stated.items()}


def _count(name: str, value: Any) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise InputError(f"{name} must be a whole number, but got {value!r}.")
    return int(value)


def _labels(name: str, value: Any) -> str:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must map labels to values, but got {value!r}.")
    return json.dumps({key: _text(f"{name}.{key}", each) for key, each in value.items()})


def _joined(name: str, value: Any) -> str:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InputError(f"{name} must be a list of texts such as key=value:NoSchedule, but got {value!r}.")
    return ",".join(value)


def _text(name: str, value: Any) -> str:
    """Return a text, a number or a truth as text: 4.0 is ``4``.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise InputError(f"{name} must be a text or a number, but got {value!r}.")
    return str(whole(value))
