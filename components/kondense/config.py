"""A stage's Config dataclass: the only home of its parameters' names, defaults, ranges and descriptions.

Flags, KFP components and run forms are made from it. Stdlib only, so that ``--help`` and compilation are fast.
"""

import argparse
import dataclasses
import hashlib
import inspect
import json
import math
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Self

from kondense.errors import InputError, meant
from kondense.renamed import refuse_old

C = typing.TypeVar("C", bound="Config")

KINDS = (int, float, str, bool)
INTERVAL = re.compile(r"([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])")


def option(
    default: int | float | str | bool,
    description: str,
    *,
    interval: str = "",
    choices: Sequence[str] | Sequence[int] = (),
) -> Any:
    """Declare one field of a Config.

    Args:
        default: the default value; the type is that of the annotation.
        description: one line for ``--help``, the KFP component and the run form.
        interval: the allowed range in interval notation, such as ``[0, 1)`` or ``[1, inf)``; a number needs one.
        choices: the allowed values.
    """
    metadata = {"description": description, "interval": interval, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


def described(field: dataclasses.Field[Any], text: str = "", *, default: bool = False) -> str:
    """Return a field's description, or ``text``, with its range or choices, and its default if ``default``."""
    interval, choices = field.metadata["interval"], field.metadata["choices"]
    rules = [f"in {interval}"] if interval else [", ".join(map(str, choices))] if choices else []
    rules += [f"default {field.default!r}"] if default else []
    return (text or field.metadata["description"]) + (f" ({'; '.join(rules)})" if rules else "")


def outside(value: float, interval: str) -> bool:
    """Return whether ``value`` is outside ``interval``; NaN always is."""
    match = INTERVAL.fullmatch(interval)
    assert match, f"malformed interval {interval!r}"
    opening, low, high, closing = match.groups()
    above = value >= float(low) if opening == "[" else value > float(low)
    below = value <= float(high) if closing == "]" else value < float(high)
    return not (above and below)


def check_choice(name: str, value: str | int, choices: Sequence[str] | Sequence[int]) -> None:
    """Raise InputError, listing ``choices`` and naming the nearest, unless ``value`` is one of them."""
    if value not in choices:
        known = ", ".join(map(str, sorted(choices)))
        raise InputError(f"{name} must be one of {known}, but got {value!r}{meant(value, choices)}.")


@dataclasses.dataclass(frozen=True)
class Config:
    """A flat set of int, float, str and bool parameters, checked when it is created.

    A subclass that has rules between fields extends ``__post_init__`` and calls this one first.

    Raises:
        TypeError: at its definition, a subclass has a field without description, or a number without range.
        InputError: a value has the wrong type or is out of range; the text gives rule and value.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name, kind in inspect.get_annotations(cls, eval_str=True).items():
            _check_field(f"{cls.__name__}.{name}", kind, cls.__dict__.get(name))

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = self._coerced(field.name, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if field.metadata["interval"] and outside(value, field.metadata["interval"]):
                told = f"{value}{_fraction_of(value, field)}"
                raise InputError(f"{field.name} must be in {field.metadata['interval']}, but got {told}.")
            if field.metadata["choices"]:
                check_choice(field.name, value, field.metadata["choices"])

    @staticmethod
    def _coerced(name: str, kind: type, value: Any) -> Any:
        # KFP hands numbers over as JSON numbers, so 3 may arrive as 3.0 and 1.0 as 1.
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            if abs(value) > sys.float_info.max:
                raise InputError(f"{name} must be a number of at most {sys.float_info.max:.2g}, but is larger.")
            return float(value)
        if type(value) is not kind:
            raise InputError(f"{name} must be {kind.__name__}, but got {value!r}.")
        if isinstance(value, float) and math.isnan(value):
            raise InputError(f"{name} must be a number, but got {value}.")
        return value

    def to_dict(self) -> dict[str, int | float | str | bool]:
        """Return the parameters by name."""
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """Return the SHA-256 of the parameters in canonical JSON: equal configs, equal digests."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def parameters(cls) -> dict[str, tuple[type, dataclasses.Field[Any]]]:
        """Return type and declaration of every parameter, by the name that flags and texts give it."""
        hints = typing.get_type_hints(cls)
        return {field.name: (hints[field.name], field) for field in dataclasses.fields(cls)}

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> Self:
        """Return a Config from texts, as flags, ``--set`` and Katib give them.

        Raises:
            InputError: an unknown name (the known ones are listed), or a text that is not a value of its type.
        """
        return cls(**cls._parsed(values))

    def updated(self, values: Mapping[str, str]) -> Self:
        """Return this Config with the parameters that ``values`` sets as texts.

        Raises:
            InputError: an unknown name (the known ones are listed), or a text that is not a value of its type.
        """
        return dataclasses.replace(self, **self._parsed(values))

    @classmethod
    def _parsed(cls, values: Mapping[str, str]) -> dict[str, Any]:
        known = cls.parameters()
        refuse_old(cls.__name__, values)
        for name in values:
            if name not in known:
                raise InputError(
                    f"unknown parameter {name!r} of {cls.__name__}{meant(name, known)}; the parameters are"
                    f" {', '.join(sorted(known))}."
                )
        return {name: parse(name, known[name][0], text) for name, text in values.items()}


def _fraction_of(percent: float, field: dataclasses.Field[Any]) -> str:
    """Return the fraction that a percentage means, in words, where a field is a fraction; else ""."""
    if "fraction" not in field.metadata["description"] or not 2 <= percent <= 100:
        return ""
    return f" (a fraction: {percent / 100:g} is {percent:g} %)"


def _check_field(name: str, kind: Any, field: Any) -> None:
    """Raise TypeError unless a field states all that flags, components and forms are made from."""
    metadata = field.metadata if isinstance(field, dataclasses.Field) else {}
    if kind not in KINDS:
        raise TypeError(f"{name} must be int, float, str or bool, but got {kind}.")
    if not metadata.get("description"):
        raise TypeError(f"{name} must be declared with option(default, description), but got {field!r}.")
    if kind in (int, float) and not (metadata["choices"] or INTERVAL.fullmatch(metadata["interval"])):
        raise TypeError(f"{name} is a number and must have an interval such as [0, inf), or choices.")


def parse(name: str, kind: type, text: str) -> int | float | str | bool:
    """Return the value that a parameter's text means.

    Raises:
        InputError: the text is not of type ``kind``; booleans are ``true`` and ``false``.
    """
    if kind is str:
        return text
    if kind is bool:
        check_choice(name, text.lower(), ("true", "false"))
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{name} must be {kind.__name__}, but got {text!r}.") from None


def add_flags(parser: argparse.ArgumentParser, config: type[Config]) -> None:
    """Add one ``--flag`` per parameter of ``config`` to ``parser``; see ``flag``."""
    for name, (kind, field) in config.parameters().items():
        help_text = described(field, default=True).replace("%", "%%")
        parser.add_argument(flag(name), dest=name, metavar=kind.__name__, help=help_text)


def flag(name: str) -> str:
    """Return the command-line flag of a parameter: ``batch_size`` -> ``--batch-size``.

    A stage's parameter keeps its name: ``prune.batch_size`` -> ``--prune.batch_size``, as ``--set`` takes it.
    """
    return f"--{name}" if "." in name else "--" + name.replace("_", "-")


def from_flags(namespace: argparse.Namespace, config: type[C]) -> C:
    """Return a ``config`` from parsed flags; the others keep their defaults."""
    given = {name: getattr(namespace, name) for name in config.parameters()}
    return config.from_strings({name: text for name, text in given.items() if text is not None})
