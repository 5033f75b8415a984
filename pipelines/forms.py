"""A pipeline whose run form holds its own parameters and those of another one.

KFP reads a pipeline's parameters from a function's signature and their descriptions from its docstring, and passes
values by position; ``inspect.signature`` and ``inspect.getdoc`` let both be put together instead of written twice.
"""

import inspect
from collections.abc import Callable, Collection
from typing import Any

ARGS = "Args:\n"


def with_form_of(
    base: Callable[..., Any], function: Callable[..., None], *, without: Collection[str] = ()
) -> Callable[..., None]:
    """Return ``function`` with the parameters of ``base`` added to its own.

    Args:
        base: a function whose docstring tells of its parameters under ``Args:``.
        function: takes the values of ``base`` as one mapping, and after it its own parameters.
        without: parameters of ``base`` that are left out.
    """
    _, *own = inspect.signature(function).parameters.values()
    added = [each for each in inspect.signature(base).parameters.values() if each.name not in without]

    def combined(*arguments: Any) -> None:
        values = dict(zip((each.name for each in added), arguments[len(own) :], strict=True))
        function(values, *arguments[: len(own)])

    kept = {each.name for each in (*own, *added)}
    described = [line for each in (function, base) for line in _described(each) if line.split(":")[0].strip() in kept]
    combined.__name__ = function.__name__
    combined.__doc__ = "\n".join([(inspect.getdoc(function) or "").partition(ARGS)[0] + ARGS.rstrip(), *described])
    combined.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]  # what inspect reads
    return combined


def _described(function: Callable[..., Any]) -> list[str]:
    """Return the lines of a docstring that tell of its parameters, one each."""
    text = (inspect.getdoc(function) or "").partition(ARGS)[2]
    return [line for line in text.splitlines() if line.strip()]
