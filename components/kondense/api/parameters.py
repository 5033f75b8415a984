"""Keyword arguments of the public functions, made from the stages' Configs."""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from kondense.config import Config, described
from kondense.errors import InputError, meant
from kondense.renamed import refuse_old

C = typing.TypeVar("C", bound=Config)
F = typing.TypeVar("F", bound=Callable[..., Any])


def configured(config: type[C], parameters: Mapping[str, Any]) -> C:
    """Return a Config of the given parameters.

    Raises:
        InputError: an unknown name (the right ones are listed) or a value out of its range.
    """
    refuse_old(config.__name__, parameters)
    names = [field.name for field in dataclasses.fields(config)]
    for name in parameters:
        if name not in names:
            known = ", ".join(sorted(names))
            raise InputError(f"unknown parameter {name!r}{meant(name, names)}; the parameters are {known}.")
    return config(**parameters)


def takes(config: type[Config], *, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Return a decorator that shows a Config's fields in a function's signature and docstring.

    Args:
        config: its fields become keyword arguments in place of the function's ``**parameters``.
        without: fields that the function has arguments of its own for.
    """
    fields = [field for field in dataclasses.fields(config) if field.name not in without]
    hints = typing.get_type_hints(config)

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        stated = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        shown = [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
            )
            for field in fields
            if field.name not in signature.parameters
        ]
        function.__signature__ = signature.replace(parameters=[*stated, *shown])  # type: ignore[attr-defined]
        lines = "\n".join(f"    {field.name}: {described(field, default=True)}." for field in fields)
        function.__doc__ = inspect.cleandoc(function.__doc__ or "").replace("    **parameters: PARAMETERS", lines)
        return function

    return decorate
