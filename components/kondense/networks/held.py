"""Networks held in this process: modules given in memory whose code nothing can import, as classes of a notebook.

Such a network is known as ``in-memory:CLASS-DIGEST``. The digest is that of its layers and of the code of its classes,
so that the same cell run again, also in another process, gives the same name, and a changed one another. What it is
built from is a copy of the module; it lives as long as a ``NetworkSpec`` names it.
"""

import copy
import hashlib
import types
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from kondense.errors import InputError

PREFIX = "in-memory"  # of names; no module can have it
LIBRARIES = ("torch", "torchvision", "timm", "kondense")  # whose code counts by the names of its classes

_templates = weakref.WeakValueDictionary[str, nn.Module]()


def is_held(name: str) -> bool:
    """Return whether a network's name means a module given in memory."""
    return name.partition(":")[0] == PREFIX


def hold(module: nn.Module, layers: str) -> tuple[str, nn.Module]:
    """Keep a copy of ``module`` to build others from; return its name and the copy, which the caller must keep.

    Args:
        module: the network; not changed.
        layers: describes its architecture.

    Raises:
        InputError: the module cannot be copied.
    """
    kind = type(module).__name__
    digest = hashlib.sha256(layers.encode())
    for part in sorted({type(each) for each in module.modules()}, key=lambda each: each.__qualname__):
        digest.update("\n".join(_code(part, set())).encode())
    name = f"{PREFIX}:{kind}-{digest.hexdigest()[:12]}"
    if name not in _templates:
        try:
            template = copy.deepcopy(module)
        except Exception as error:  # a module may hold anything
            raise InputError(f"a network in memory must allow copy.deepcopy, but {kind} does not: {error}") from error
        _templates[name] = template
        return name, template
    return name, _templates[name]


def template(name: str) -> nn.Module | None:
    """Return the copy that ``name`` is built from, or None if this process holds none."""
    return _templates.get(name)


def held_factory(name: str) -> Callable[[], nn.Module]:
    """Return what builds the network ``name`` with weights drawn anew.

    Raises:
        InputError: this process holds no such network.
    """
    found = _templates.get(name)
    if found is None:
        raise InputError(f"network {name!r} was given in memory, but not to this process.")
    original = found  # keeps it alive

    def make() -> nn.Module:
        return _drawn_anew(copy.deepcopy(original))

    return make


def _drawn_anew(module: nn.Module) -> nn.Module:
    """Draw the weights of a network in place: layers by ``reset_parameters``, else like the values that are there."""
    drawn: set[int] = set()
    with torch.no_grad():
        for part in module.modules():
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if callable(reset):
                reset()
                drawn |= {id(parameter) for parameter in part.parameters(recurse=False)}
        for parameter in module.parameters():
            if id(parameter) not in drawn:
                _draw_alike(parameter)
    return module


def _draw_alike(parameter: Tensor) -> None:
    """Draw a layer's own parameter from the normal distribution with the mean and spread of its values."""
    if parameter.numel() > 1 and parameter.is_floating_point():
        parameter.normal_(float(parameter.mean()), float(parameter.std()))


def _code(kind: type, seen: set[int]) -> Iterator[str]:
    """Yield the code of a class and of the functions that it calls by name, as far as no library has them."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in (*LIBRARIES, "builtins"):
            yield f"{base.__module__}.{base.__qualname__}"
            continue
        for name, member in sorted(vars(base).items()):
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType):
                yield name
                yield from _function(function, seen)


def _function(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    if id(function) in seen:
        return
    seen.add(id(function))
    names = list(_bytecode(function.__code__))
    yield from names
    for name in sorted(set(names)):
        called = function.__globals__.get(name)
        if isinstance(called, types.FunctionType) and called.__module__ == function.__module__:
            yield from _function(called, seen)


def _bytecode(code: types.CodeType) -> Iterator[str]:
    """Yield what a function computes: neither its place in a file nor addresses in memory."""
    yield code.co_code.hex()
    yield from (*code.co_names, *code.co_varnames)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _bytecode(constant)
        else:
            yield repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant)
