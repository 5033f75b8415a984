"""Whole numbers that modules of a network's own hold, such as sizes in ``self.dim``; literals.py has those in code."""

import copy
import sys
import types
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor, nn

SEQUENCES = (tuple, list)
LEVELS = 3  # of what holds a number: the levels of self.config.encoder.sizes[0]
# Objects of the standard library hold no sizes of a network, but for these.
CONTAINERS = {"argparse", "collections", "types"}


def numbers_held(module: nn.Module) -> dict[str, int]:
    """Return the whole numbers that a module of the network's own holds, by attribute.

    An attribute may be one of the class, a tuple, list or dictionary of numbers, or an object that holds the network's
    sizes, within up to LEVELS of these: ``dim``, ``sizes.1``, ``config.encoder.hidden_size``. Of torch's modules,
    ``nn.Unflatten`` holds some.
    """
    if _is_torchs(type(module)) and not isinstance(module, nn.Unflatten):
        return {}
    held: dict[str, Any] = {}
    for kind in reversed(type(module).__mro__):
        if not _is_torchs(kind) and kind is not object:
            held |= {name: value for name, value in vars(kind).items() if _is_number(value)}
    return {
        f"{attribute}{path}": number
        for attribute, value in (held | vars(module)).items()
        if attribute[0] != "_" and attribute != "training"
        for path, number in _numbers(value, LEVELS)
    }


def set_number(module: nn.Module, attribute: str, number: int) -> None:
    """Set a number of ``numbers_held``; what holds it is copied, since others may hold it too."""
    name, *path = attribute.split(".")
    setattr(module, name, _changed(getattr(module, name), path, number))


def _numbers(value: Any, levels: int) -> Iterator[tuple[str, int]]:
    """Yield the numbers in a value, with the paths to them."""
    alone = value[0] if isinstance(value, SEQUENCES) and len(value) == 1 else value
    if _is_number(alone):
        yield "", int(alone)
    elif levels:
        for key, part in _parts(value).items():
            for path, number in _numbers(part, levels - 1):
                yield f".{key}{path}", number


def _is_number(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_torchs(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "torch"


def _parts(value: Any) -> dict[str, Any]:
    """Return what a tuple, list, dictionary or object of sizes holds, by index, key or attribute."""
    if isinstance(value, SEQUENCES):
        return {str(index): each for index, each in enumerate(value)}
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if type(key) is str and key[:1] != "_" and "." not in key}
    package = type(value).__module__.partition(".")[0]
    if package in sys.stdlib_module_names and package not in CONTAINERS:
        return {}
    if package == "torch" or isinstance(value, nn.Module | Tensor | type | types.ModuleType) or callable(value):
        return {}
    slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
    attributes = getattr(value, "__dict__", {}) | {name: getattr(value, name) for name in slots}
    return {key: each for key, each in attributes.items() if key[0] != "_"}


def _slots(kind: type) -> Sequence[str]:
    slots = getattr(kind, "__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _changed(value: Any, path: Sequence[str], number: int) -> Any:
    """Return a copy of a value in which the number at a path is another one."""
    if not path:
        if isinstance(value, SEQUENCES):
            return _like(value, [number])
        return type(value)(number) if isinstance(value, np.integer) else number
    key, *rest = path
    if isinstance(value, SEQUENCES):
        parts = [_changed(each, rest, number) if str(index) == key else each for index, each in enumerate(value)]
        return _like(value, parts)
    copied: Any = copy.copy(value)
    part = _changed(_parts(value)[key], rest, number)
    if isinstance(copied, dict):
        copied[key] = part
    elif key in getattr(copied, "__dict__", {}):
        vars(copied)[key] = part
    else:
        object.__setattr__(copied, key, part)  # a slot, of a frozen class, too
    return copied


def _like(value: Any, parts: list[Any]) -> Any:
    """Return a tuple, named tuple or list of the type of ``value`` that holds ``parts``."""
    return type(value)._make(parts) if hasattr(type(value), "_make") else type(value)(parts)
