"""The fields of a batch/v1 Job, as Katib's webhook reads and compares them.

It converts the trialSpec to a Job and back, and refuses what does not come back: a field that it does not know, and a
value that is left out or written otherwise on the way back, such as ``false``, an empty text, ``null`` or ``1024Mi``.

Source: validateTrialJob and validatePatchJob in validator.go of Katib 0.19. job_fields.json has the fields of a Job and
of all that is in it, by type, from the tags of its Go types (k8s.io/api v0.34, which Katib 0.19 is built with): ``[x]``
is a list, ``{x}`` an object with texts for keys, ``*x`` a pointer, and ``x?`` is left out where it is empty.
"""

import contextlib
import datetime
import functools
import json
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

from kondense.errors import meant
from kondense.katib.fields import Violation
from kondense.katib.quantities import canonical

# Without these Kubernetes refuses the Job, though Katib takes the template.
NAMED = {"EnvVar": ("name",), "Container": ("name",), "Volume": ("name",), "VolumeMount": ("name", "mountPath")}
EXEMPT = (".resources.limits.", ".resources.requests.")  # of the comparison, not of the types
ELSE = "or Katib refuses the Job"


def broken(job: Any, path: str) -> Iterator[Violation]:
    """Yield the fields of a Job that Katib's webhook or Kubernetes refuses.

    Args:
        job: the parsed object.
        path: its path, for the violations.
    """
    yield from _model(job, "Job", path)


def _whole(value: Any, bits: int) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -(2**bits) <= value < 2**bits and value == value // 1


def _time(value: Any) -> bool:
    with contextlib.suppress(ValueError, TypeError):
        return bool(datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ"))
    return False


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "string": (lambda value: isinstance(value, str), "a string (quote it)"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "int32": (lambda value: _whole(value, 31), "an integer of 32 bits"),
    "int64": (lambda value: _whole(value, 63), "an integer of 64 bits"),
    "number or string": (
        lambda value: isinstance(value, str) or (isinstance(value, int) and _whole(value, 31)),
        "a string or an integer of 32 bits",
    ),
    "time": (_time, "a time like 2024-01-31T12:00:00Z"),
}


@functools.cache
def _fields() -> dict[str, dict[str, str]]:
    text = resources.files("kondense.katib").joinpath("job_fields.json").read_text(encoding="utf-8")
    types: dict[str, dict[str, str]] = json.loads(text)
    return types


def _model(value: Any, kind: str, path: str) -> Iterator[Violation]:
    if not isinstance(value, dict):
        yield Violation(path, "must be an object in a Job", value)
        return
    known = _fields()[kind]
    for key in NAMED.get(kind, ()):
        if not value.get(key):
            yield Violation(path, f"must have a {key} in a Job", value)
    for key, item in value.items():
        if key not in known:
            rule = f"unknown field of a Job{meant(str(key), known)}; the known fields are {', '.join(known)}"
            yield Violation(f"{path}.{key}", rule, item)
        elif key not in NAMED.get(kind, ()) or item:
            yield from _field(item, known[key], f"{path}.{key}")


def _field(value: Any, kind: str, path: str) -> Iterator[Violation]:
    kind, optional = kind.removesuffix("?"), kind.endswith("?")
    if value is None:
        if optional or kind[0] not in "*[{":
            yield Violation(path, f"must be left out or have a value, {ELSE}", None)
        return
    count = 0
    for violation in _value(value, kind.removeprefix("*"), path):
        count += 1
        yield violation
    left_out = kind[0] in "[{" or kind in CHECKS
    if not count and optional and left_out and not value and not _exempt(path):
        yield Violation(path, f"must be left out where it is empty, false or 0, {ELSE}", value)


def _value(value: Any, kind: str, path: str) -> Iterator[Violation]:
    if kind[0] == "[":
        yield from _list(value, kind[1:-1], path)
    elif kind[0] == "{":
        yield from _map(value, kind[1:-1], path)
    elif kind in _fields():
        yield from _model(value, kind, path)
    elif kind == "quantity":
        yield from _quantity(value, path)
    elif kind in CHECKS:
        right, name = CHECKS[kind]
        if not right(value):
            yield Violation(path, f"must be {name} in a Job", value)


def _list(value: Any, kind: str, path: str) -> Iterator[Violation]:
    if not isinstance(value, list):
        yield Violation(path, "must be a list in a Job", value)
        return
    for i, item in enumerate(value):
        if item is None:
            yield Violation(f"{path}[{i}]", "must not be null in a Job", item)
        else:
            yield from _value(item, kind, f"{path}[{i}]")


def _map(value: Any, kind: str, path: str) -> Iterator[Violation]:
    if not isinstance(value, dict):
        yield Violation(path, "must be an object in a Job", value)
        return
    for key, item in value.items():
        if item is not None:
            yield from _value(item, kind, f"{path}.{key}")
        elif not _exempt(f"{path}.{key}"):
            yield Violation(f"{path}.{key}", "must not be null in a Job", item)


def _quantity(value: Any, path: str) -> Iterator[Violation]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    written = canonical(str(value)) if number or isinstance(value, str) else None
    if written is None:
        yield Violation(path, "must be a quantity like 500m, 2 or 1Gi in a Job", value)
    elif value != written and not _exempt(path):
        yield Violation(path, f"must be written as {written!r}, {ELSE}", value)


def _exempt(path: str) -> bool:
    return any(part in path for part in EXEMPT)
