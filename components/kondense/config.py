"""A stage's Config dataclass: the only home of its parameters' names, defaults, ranges and descriptions.

Stdlib only, so that compiling a pipeline or printing ``--help`` stays cheap.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Self

from kondense.errors import InputError
from kondense.renamed import refuse_old

C = typing.TypeVar("C", bound="Config")

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
        default: the value when none is given; it fixes nothing about the type, the annotation does.
        description: one line for ``--help`` and the KFP run form.
        interval: the allowed range in interval notation, such as ``[0, 1)`` or ``[1, inf)``.
        choices: the allowed values.
    """
    metadata = {"description": description, "interval": interval, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


def outside(value: float, interval: str) -> bool:
    """Tell whether ``value`` lies outside ``interval`` (NaN always does)."""
    match = INTERVAL.fullmatch(interval)
    assert match, f"malformed interval {interval!r}"
    opening, low, high, closing = match.groups()
    above = value >= float(low) if opening == "[" else value > float(low)
    below = value <= float(high) if closing == "]" else value < float(high)
    return not (above and below)


def check_choice(name: str, value: str | int, choices: Sequence[str] | Sequence[int]) -> None:
    """Raise ValueError, listing the right ones, unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(map(str, sorted(choices)))}, but got {value!r}.")


@dataclasses.dataclass(frozen=True)
class Config:
    """A flat set of int, float, str and bool parameters, checked when it is made.

    A subclass that has rules between fields extends ``__post_init__`` and calls this one first.

    Raises:
        ValueError: a value of the wrong type or outside its range; the text gives rule and value.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = self._coerced(field.name, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if field.metadata["interval"] and outside(value, field.metadata["interval"]):
                raise InputError(f"{field.name} must be in {field.metadata['interval']}, but got {value}.")
            if field.metadata["choices"]:
                check_choice(field.name, value, field.metadata["choices"])

    @staticmethod
    def _coerced(name: str, kind: type, value: Any) -> Any:
        # KFP hands numbers over as JSON numbers, so 3 may arrive as 3.0 and 1.0 as 1.
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
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
    def from_strings(cls, values: Mapping[str, str]) -> Self:
        """Build a Config from texts, as flags, ``--set`` and Katib give them.

        Raises:
            ValueError: an unknown name (the right ones are listed) or a text that is no such value.
        """
        return cls(**cls._parsed(values))

    def updated(self, values: Mapping[str, str]) -> Self:
        """Return this Config with the parameters that ``values`` gives as texts.

        Raises:
            ValueError: an unknown name (the right ones are listed) or a text that is no such value.
        """
        return dataclasses.replace(self, **self._parsed(values))

    @classmethod
    def _parsed(cls, values: Mapping[str, str]) -> dict[str, Any]:
        hints = typing.get_type_hints(cls)
        refuse_old(cls.__name__, values)
        for name in values:
            if name not in hints:
                raise InputError(
                    f"unknown parameter {name!r} of {cls.__name__}; the parameters are {', '.join(sorted(hints))}."
                )
        return {name: parse(name, hints[name], text) for name, text in values.items()}


def parse(name: str, kind: type, text: str) -> int | float | str | bool:
    """Read one parameter's text as its type.

    Raises:
        ValueError: the text is no such value; booleans are ``true`` and ``false``.
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
    """Add one ``--flag`` per field of ``config`` to ``parser``; underscores become dashes."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        choices = "|".join(map(str, field.metadata["choices"]))
        allowed = field.metadata["interval"] or choices or hints[field.name].__name__
        help_text = f"{field.metadata['description']} [{allowed}; default {field.default}]"
        parser.add_argument(flag(field.name), metavar=hints[field.name].__name__, help=help_text.replace("%", "%%"))


def flag(name: str) -> str:
    """Return the command-line flag of a parameter: ``batch_size`` -> ``--batch-size``."""
    return "--" + name.replace("_", "-")


def from_flags(namespace: argparse.Namespace, config: type[C]) -> C:
    """Build ``config`` from parsed flags; those not given keep their defaults."""
    names = [field.name for field in dataclasses.fields(config)]
    return config.from_strings(
        {name: getattr(namespace, name) for name in names if getattr(namespace, name) is not None}
    )
