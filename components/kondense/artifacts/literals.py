"""Numbers in the code of a network's own modules, such as the 256 of ``x.view(-1, 16 * 4 * 4)``.

Where channels are removed, a number that stands for their count becomes smaller. The module then has methods of its
own, equal to those of its class but for that number. A number is named by the value that the class's code has for it,
and means all places of the method where that value stands.
"""

import types
from collections.abc import Mapping
from typing import Any

from torch import nn

from kondense.errors import InputError
from kondense.networks.outputs import OWN_FORWARD

Literals = dict[str, dict[int, int]]  # by method: the class's numbers, and those of the module
LEAST = 2  # smaller numbers name axes, or are no counts


def literals_of(module: nn.Module) -> Literals:
    """Return the numbers in the methods of a module of the user's own: those of its class, and the present ones."""
    found: Literals = {}
    for method, function in _methods(module).items():
        own = vars(module).get(_place(module, method))
        present = own.__func__.__code__ if isinstance(own, types.MethodType) else function.__code__
        before, after = _numbers(function.__code__.co_consts), _numbers(present.co_consts)
        numbers = {old: new for old, new in zip(before, after, strict=True) if old >= LEAST}
        if len(before) == len(after) and numbers:
            found[method] = numbers
    return found


def changed_literals(module: nn.Module) -> Literals:
    """Return the numbers of a module that are others than those of its class."""
    found = {
        method: {old: new for old, new in numbers.items() if old != new}
        for method, numbers in literals_of(module).items()
    }
    return {method: numbers for method, numbers in found.items() if numbers}


def set_literal(module: nn.Module, method: str, number: int, value: int) -> None:
    """Let a method of a module have ``value`` where its class has ``number``, in place."""
    function = _methods(module)[method]
    changes = literals_of(module)[method] | {number: value}
    code = function.__code__.replace(co_consts=_replaced(function.__code__.co_consts, changes))
    made = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__dict__ = function.__kwdefaults__, dict(function.__dict__)
    vars(module)[_place(module, method)] = types.MethodType(made, module)


def lower_literals(target: nn.Module, name: str, literals: Any) -> None:
    """Lower numbers in the code of a module of the network's own, as an edit of it asks.

    Args:
        target: the module; changed in place.
        name: its name, for errors.
        literals: by method, the present number by the class's.

    Raises:
        InputError: its code has no such number, or a smaller one.
    """
    held = literals_of(target)
    if not isinstance(literals, dict) or not all(isinstance(changes, dict) for changes in literals.values()):
        raise InputError(f"a structural edit of {name!r} must name numbers in code by method, but got another form.")
    for method, changes in literals.items():
        for number, value in changes.items():
            most = next((most for most in held.get(method, {}) if str(most) == str(number)), 0)
            if type(value) is not int or not 0 < value < most:
                raise InputError(
                    f"a structural edit of {name!r} must lower a number in the code of {ascii(method)[:40]}, but got"
                    f" {ascii(number)[:20]}={ascii(value)[:20]}."
                )
            set_literal(target, method, most, value)


def _methods(module: nn.Module) -> dict[str, types.FunctionType]:
    """Return the functions that the user's classes of a module define, by name."""
    found: dict[str, types.FunctionType] = {}
    for kind in type(module).__mro__:
        if kind.__module__.partition(".")[0] == "torch" or kind is object:
            break
        if "_returns_logits" in vars(kind):
            continue
        for name, value in vars(kind).items():
            if isinstance(value, types.FunctionType) and not name.startswith("__"):
                found.setdefault(name, value)
    return found


def _place(module: nn.Module, method: str) -> str:
    """Return the attribute that holds a module's own form of a method."""
    return OWN_FORWARD if method == "forward" and hasattr(type(module), "_returns_logits") else method


def _numbers(constants: tuple[Any, ...]) -> list[int]:
    """Return the whole numbers among a code's constants, alone or in tuples."""
    found = []
    for constant in constants:
        if type(constant) is int:
            found.append(constant)
        elif type(constant) is tuple:
            found += _numbers(constant)
    return found


def _replaced(constants: tuple[Any, ...], changes: Mapping[int, int]) -> tuple[Any, ...]:
    return tuple(
        _replaced(constant, changes)
        if type(constant) is tuple
        else changes.get(constant, constant)
        if type(constant) is int
        else constant
        for constant in constants
    )
