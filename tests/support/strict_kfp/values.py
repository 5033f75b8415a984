"""Values on their way: parameters as protobuf's JSON has them, metadata as the metadata store gives them back.

The backend is written in Go. Its protobuf writes a number without a point when it is whole, so a step reads 1.0 as
the int 1; kfp's local runner hands it a float. Every number is a double on the way, so ints above 2**53 are rounded.
"""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

WHOLE_BELOW = 1e21  # from here on Go writes an exponent, which Python reads as a float
KINDS = {
    "STRING": str,
    "NUMBER_INTEGER": float,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


def wire(value: Any) -> Any:
    """Return a JSON value as it is after a protobuf Value and Go's JSON.

    Raises:
        ValueError: it is no JSON value, or not finite.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"protobuf's JSON has no {number}.")
        return int(number) if number.is_integer() and abs(number) < WHOLE_BELOW else number
    if isinstance(value, list):
        return [wire(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): wire(each) for key, each in value.items()}
    raise ValueError(f"{value!r} is no JSON value.")


def kind_of(value: Any) -> type:
    """Return which of a protobuf Value's kinds a value is."""
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def as_type(name: str, value: Any, kind: str) -> Any:
    """Return a parameter's value as a task of the declared type gets it: a STRING takes anything, others their own.

    Raises:
        ValueError: the value has another type.
    """
    if kind not in KINDS:
        raise NotImplementedError(f"input parameter {name!r}: type {kind} is not supported here.")
    if kind == "STRING" and not isinstance(value, str):
        return as_text(value)
    if kind_of(value) is not KINDS[kind]:
        raise ValueError(f"input parameter {name!r} is {kind}, but got {value!r}.")
    return wire(value)


def as_text(value: Any) -> str:
    """Return a value as text, as placeholders and parameters of type STRING have it."""
    if value is None or isinstance(value, str):
        return value or ""
    if kind_of(value) is float:
        return format(Decimal(str(wire(value))), "f")  # never with an exponent
    return json.dumps(wire(value), separators=(",", ":"), ensure_ascii=False)


def stored(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return an artifact's metadata as later steps get it from the metadata store.

    The store has texts, numbers and structs: a bool becomes 0 or 1, a list comes back as {"list": [...]} and a
    mapping as {"struct": {...}}.

    Raises:
        ValueError: a value is null, which the backend does not store.
    """
    found: dict[str, Any] = {}
    for key, value in metadata.items():
        if value is None:
            raise ValueError(f"metadata {key!r} is null, which the metadata store does not take.")
        if isinstance(value, bool):
            found[key] = int(value)
        elif isinstance(value, list):
            found[key] = {"list": wire(value)}
        elif isinstance(value, Mapping):
            found[key] = {"struct": wire(value)}
        else:
            found[key] = wire(value)
    return found


def read_output(text: str) -> dict[str, Any]:
    """Return an executor's output file as the launcher reads it.

    Raises:
        ValueError: it is no JSON in protobuf's sense (NaN, Infinity, a key twice), or no ExecutorOutput.
    """
    found = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    message = pipeline_spec_pb2.ExecutorOutput()
    try:
        json_format.ParseDict(found, message)
    except json_format.ParseError as error:
        raise ValueError(f"no ExecutorOutput: {error}") from None
    return {"parameterValues": found.get("parameterValues") or {}, "artifacts": found.get("artifacts") or {}}


def check_input(message: Mapping[str, Any]) -> None:
    """Raise ``ParseError`` unless ``message`` is an ExecutorInput."""
    json_format.ParseDict(message, pipeline_spec_pb2.ExecutorInput())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number in protobuf's JSON.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key is there twice: {[key for key, _ in pairs]}.")
    return found
