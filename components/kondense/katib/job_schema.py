"""The fields of a batch/v1 Job and their types.

The definitions are those of the Kubernetes client.

Source: validateTrialJob in validator.go of Katib 0.19, which converts the object to a Job and compares.
"""

import re
from collections.abc import Iterator
from typing import Any

from kondense.katib.fields import Violation

SCALARS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}
LIST = re.compile(r"list\[(.+)\]")
MAP = re.compile(r"dict\(str, (.+)\)")
NAMED = {"V1EnvVar": ("name",), "V1Container": ("name",), "V1Volume": ("name",), "V1VolumeMount": ("name", "mountPath")}
QUANTITIES = ("limits", "requests")  # Katib exempts them: device plugins define resources


def broken(job: Any, path: str) -> Iterator[Violation]:
    """Yield the unknown and wrongly typed fields of a Job.

    Args:
        job: the parsed object.
        path: its path, for the violations.
    """
    yield from _walk(job, "V1Job", path)


def _walk(value: Any, kind: str, path: str) -> Iterator[Violation]:
    if value is None or kind in ("object", "datetime"):
        return
    if kind in SCALARS:
        if not isinstance(value, SCALARS[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield Violation(path, f"must be of type {kind} in a Job", value)
    elif match := LIST.fullmatch(kind):
        yield from _walk_list(value, match[1], path)
    elif not isinstance(value, dict):
        yield Violation(path, "must be an object in a Job", value)
    elif match := MAP.fullmatch(kind):
        for key, item in value.items() if not path.endswith(QUANTITIES) else ():
            yield from _walk(item, match[1], f"{path}.{key}")
    else:
        yield from _walk_model(value, kind, path)


def _walk_list(value: Any, kind: str, path: str) -> Iterator[Violation]:
    if not isinstance(value, list):
        yield Violation(path, "must be a list in a Job", value)
        return
    for i, item in enumerate(value):
        if item is None:
            yield Violation(f"{path}[{i}]", "must not be null in a Job", item)
        yield from _walk(item, kind, f"{path}[{i}]")


def _walk_model(value: dict[str, Any], kind: str, path: str) -> Iterator[Violation]:
    # Imported here because it takes a second.
    from kubernetes.client import models

    model = getattr(models, kind)
    attributes = {name: attribute for attribute, name in model.attribute_map.items()}
    for key in NAMED.get(kind, ()):
        if not value.get(key):
            yield Violation(path, f"must have a {key} in a Job", value)
    for key, item in value.items():
        if key not in attributes:
            yield Violation(
                f"{path}.{key}", f"unknown field of a Job; the known fields are {', '.join(attributes)}", item
            )
        else:
            yield from _walk(item, model.openapi_types[attributes[key]], f"{path}.{key}")
