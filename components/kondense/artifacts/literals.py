"""Numbers in the code of a network's own modules, such as the 256 of ``x.view(-1, 16 * 4 * 4)``.

Where channels are removed, a number that stands for their count becomes smaller. The module then has methods of its
own, equal to those of its class but for that number. A number is named by the value that the class's code has for it,
and means all places of the method where that value stands: as a number, also as a default or in a comprehension, or as
the name of a constant of the file or of the function around (``HIDDEN``, ``sizes.HIDDEN``).
"""

import dataclasses
import dis
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from kondense.errors import InputError
from kondense.networks.outputs import OWN_FORWARD

Literals = dict[str, dict[int, int]]  # by method: the class's numbers, and those of the module
LEAST = 2  # smaller numbers name axes, or are no counts
CHANGED = "_changed_numbers"  # attribute of a function that has other numbers than that of its class
LOADS = ("LOAD_GLOBAL", "LOAD_DEREF")
MOST_CONSTANTS = 255  # whose place one byte holds
UNIT = 2  # bytes of an instruction


def literals_of(module: nn.Module) -> Literals:
    """Return the numbers in the methods of a module of the user's own: those of its class, and the present ones."""
    found: Literals = {}
    for method, function in _methods(module).items():
        own = vars(module).get(_place(module, method))
        changed = vars(own.__func__).get(CHANGED) if isinstance(own, types.MethodType) else None
        if own is not None and changed is None:
            continue  # a function that the user gave the module
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        present = [*_numbers(function.__code__.co_consts), *(name.value for name in _named_numbers(function))]
        present += _numbers(defaults)
        if numbers := {number: (changed or {}).get(number, number) for number in present if number >= LEAST}:
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
    code = _with_names_replaced(function, changes)
    defaults, named = _replaced(function.__defaults__ or (), changes), function.__kwdefaults__ or {}
    made = types.FunctionType(code, function.__globals__, function.__name__, defaults, function.__closure__)
    made.__kwdefaults__ = dict(zip(named, _replaced(tuple(named.values()), changes), strict=True))
    made.__dict__ = dict(function.__dict__) | {CHANGED: changes}
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
    """Return the whole numbers among a code's constants: alone, in tuples, in functions and comprehensions within."""
    found = []
    for constant in constants:
        if type(constant) is int:
            found.append(constant)
        elif type(constant) is tuple:
            found += _numbers(constant)
        elif isinstance(constant, types.CodeType):
            found += _numbers(constant.co_consts)
    return found


def _replaced(constants: tuple[Any, ...], changes: Mapping[int, int]) -> tuple[Any, ...]:
    return tuple(_replaced_one(constant, changes) for constant in constants)


def _replaced_one(constant: Any, changes: Mapping[int, int]) -> Any:
    if type(constant) is tuple:
        return _replaced(constant, changes)
    if isinstance(constant, types.CodeType):
        return constant.replace(co_consts=_replaced(constant.co_consts, changes))
    return changes.get(constant, constant) if type(constant) is int else constant


@dataclasses.dataclass(frozen=True)
class _Name:
    """Where the code of a function loads a number by name: first and last byte, and the number."""

    begin: int
    end: int
    value: int


def _named_numbers(function: types.FunctionType) -> Iterator[_Name]:
    """Yield the constants of the file or of the function around that a function reads, such as ``sizes.HIDDEN``."""
    places = [each for each in dis.get_instructions(function) if each.opname != "CACHE"]
    ends = [each.offset for each in places[1:]] + [len(function.__code__.co_code)]
    closure = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for index, first in enumerate(places):
        if first.opname not in LOADS:
            continue
        value, last = _loaded(function, closure, first), index
        while type(value) is not int and last + 1 < len(places) and _is_attribute(places[last + 1]):
            last += 1
            value = vars(value).get(places[last].argval) if isinstance(value, type | types.ModuleType) else None
        if type(value) is int and places[index - 1].opname != "EXTENDED_ARG":
            yield _Name(first.offset, ends[last], value)


def _is_attribute(place: dis.Instruction) -> bool:
    return place.opname == "LOAD_ATTR" and not place.is_jump_target  # else another value may be before it


def _loaded(function: types.FunctionType, closure: Mapping[str, Any], place: dis.Instruction) -> Any:
    if place.opname == "LOAD_GLOBAL":
        return function.__globals__.get(place.argval)
    try:
        return closure[place.argval].cell_contents if place.argval in closure else None
    except ValueError:  # the cell is empty
        return None


def _with_names_replaced(function: types.FunctionType, changes: Mapping[int, int]) -> types.CodeType:
    """Return the code of a function with other numbers; names of numbers are replaced by the numbers."""
    code = function.__code__
    constants, content = list(_replaced(code.co_consts, changes)), bytearray(code.co_code)
    for name in _named_numbers(function):
        if changes.get(name.value, name.value) == name.value:
            continue
        if len(constants) > MOST_CONSTANTS:
            raise InputError(f"the code of {function.__qualname__} has too many constants to lower one.")
        units = (name.end - name.begin) // UNIT - 1
        load = bytes([dis.opmap["LOAD_CONST"], len(constants)])
        content[name.begin : name.end] = load + bytes([dis.opmap["NOP"], 0]) * units
        constants.append(changes[name.value])
    return code.replace(co_consts=tuple(constants), co_code=bytes(content))
