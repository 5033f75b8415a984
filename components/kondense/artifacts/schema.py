"""Check parsed JSON against type hints: TypedDicts, lists, dicts, optional types, intervals. Stdlib only."""

import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from kondense.config import outside
from kondense.files import ArtifactError


def check_fields(place: str, value: Mapping[str, Any], kind: Any) -> None:
    """Check that ``value`` has the keys of the TypedDict ``kind`` with values of their types.

    ``Annotated[float, "[0, 1]"]`` also checks the interval. Further keys are allowed.

    Args:
        place: the file, for the error.
        value: the parsed JSON object.
        kind: a TypedDict.

    Raises:
        ArtifactError: the first missing key or wrong value, with path, rule and value.
    """
    _check_object(f"{place}:", value, kind)


def _check(path: str, value: Any, kind: Any) -> None:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if typing.is_typeddict(kind):
        _check_object(path, value, kind)
    elif origin is Annotated:
        _check(path, value, arguments[0])
        if outside(value, arguments[1]):
            raise ArtifactError(f"{path} must be in {arguments[1]}, but got {value}.")
    elif origin is NotRequired:
        _check(path, value, arguments[0])
    elif origin in (typing.Union, types.UnionType):
        if value is not None:
            _check(path, value, next(argument for argument in arguments if argument is not types.NoneType))
    elif origin in (list, dict):
        _check_type(path, value, origin)
        items = value.items() if origin is dict else enumerate(value)
        for key, item in items:
            _check(f"{path}[{key!r}]", item, arguments[-1])
    elif kind is not Any:
        _check_type(path, value, kind)


def _check_object(path: str, value: Any, kind: Any) -> None:
    _check_type(path, value, dict)
    separator = " " if path.endswith(":") else "."
    for key, hint in typing.get_type_hints(kind, include_extras=True).items():
        if key in value:
            _check(f"{path}{separator}{key}", value[key], hint)
        elif key in kind.__required_keys__:
            raise ArtifactError(f"{path} must have a key {key!r}, but it is missing.")


def _check_type(path: str, value: Any, kind: type) -> None:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ArtifactError(f"{path} must be a finite number, but got {value}.")
    elif type(value) is not kind:
        raise ArtifactError(f"{path} must be {kind.__name__}, but got {type(value).__name__} {str(value)[:40]!r}.")
