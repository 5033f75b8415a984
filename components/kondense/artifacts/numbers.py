"""Whole numbers that modules of a network's own hold, such as sizes in ``self.dim``; literals.py has those in code."""

import copy
import types
from typing import Any

from torch import Tensor, nn

SEQUENCES = (tuple, list)


def numbers_held(module: nn.Module) -> dict[str, int]:
    """Return the whole numbers that a module of the network's own holds, by attribute.

    An attribute may be one of the class, a tuple, list or dictionary of numbers, or an object that holds the network's
    sizes: ``dim``, ``sizes.1``, ``config.hidden_size``. Of torch's modules, ``nn.Unflatten`` holds some.
    """
    if _is_torchs(type(module)) and not isinstance(module, nn.Unflatten):
        return {}
    found: dict[str, int] = {}
    held: dict[str, Any] = {}
    for kind in reversed(type(module).__mro__):
        if not _is_torchs(kind) and kind is not object:
            held |= {name: value for name, value in vars(kind).items() if type(value) is int}
    for attribute, value in (held | vars(module)).items():
        if attribute[0] == "_" or attribute == "training":
            continue
        alone = value[0] if type(value) in SEQUENCES and len(value) == 1 else value
        parts = {"": alone} if type(alone) is int else _parts(value)
        found |= {f"{attribute}.{key}".rstrip("."): each for key, each in parts.items() if type(each) is int}
    return found


def _is_torchs(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "torch"


def _parts(value: Any) -> dict[str, Any]:
    """Return what a tuple, list, dictionary or object of sizes holds, by index, key or attribute."""
    if isinstance(value, SEQUENCES):
        return {str(index): each for index, each in enumerate(value)}
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if type(key) is str and key[:1] != "_"}
    if isinstance(value, nn.Module | Tensor | type | types.ModuleType) or callable(value):
        return {}
    return {key: each for key, each in getattr(value, "__dict__", {}).items() if key[0] != "_"}


def set_number(module: nn.Module, attribute: str, number: int) -> None:
    """Set a number of ``numbers_held``; what holds it is copied, since others may hold it too."""
    name, _, key = attribute.partition(".")
    value = getattr(module, name)
    if not key:
        setattr(module, name, _like(value, [number]) if isinstance(value, SEQUENCES) else number)
    elif isinstance(value, SEQUENCES):
        parts = [number if str(index) == key else each for index, each in enumerate(value)]
        setattr(module, name, _like(value, parts))
    else:
        changed: Any = copy.copy(value)
        (changed if isinstance(value, dict) else vars(changed))[key] = number
        setattr(module, name, changed)


def _like(value: Any, parts: list[Any]) -> Any:
    """Return a tuple, named tuple or list of the type of ``value`` that holds ``parts``."""
    return type(value)._make(parts) if hasattr(type(value), "_make") else type(value)(parts)
