"""Build any network from its name (see ``names``).

A factory is a class of torch modules or a function annotated to return one. A name that only an artifact gives is not
imported unless the user allows it (see ``allowed``).
"""

import dataclasses
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from kondense.errors import InputError
from kondense.networks.libraries import timm_factory, torchvision_factory
from kondense.networks.names import BUILT_IN, REGISTERED, check_form


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """How to build a network: a name and JSON arguments (``classes``, ``channels``, ``image_size``, ``width``)."""

    name: str
    arguments: Mapping[str, Any]


def check_network(name: str) -> None:
    """Raise InputError unless ``name`` names a network; builds nothing."""
    factory(name)


def build(spec: NetworkSpec, *, seed: int = 0) -> nn.Module:
    """Build a network with weights drawn from ``seed``; the global generator keeps its state.

    Raises:
        InputError: an unknown name, wrong arguments, or images that the network cannot take.
    """
    make = factory(spec.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = make(**spec.arguments)
        except (TypeError, AssertionError) as error:  # torchvision asserts its arguments
            raise InputError(f"network {spec.name!r} must take {dict(spec.arguments)}, but: {error}.") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"network {spec.name!r} must be a factory of torch modules, but gave {type(module).__name__}.")
    return module


def check_images(role: str, module: nn.Module, shape: tuple[int, int, int], classes: int) -> None:
    """Raise InputError unless ``module`` takes images of ``shape`` (C, H, W) and returns one logit per class.

    ``role`` names the network in the message; the network keeps its mode.
    """
    was_training, device = module.training, next((weight.device for weight in module.parameters()), "cpu")
    module.eval()
    try:
        with torch.no_grad():
            logits_NK = module(torch.zeros(2, *shape, device=device))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:  # what forwards raise on wrong shapes
        raise InputError(f"{role} must take images of {'x'.join(map(str, shape))}, but: {error}") from error
    finally:
        module.train(was_training)
    actual = list(logits_NK.shape) if isinstance(logits_NK, torch.Tensor) else type(logits_NK).__name__
    if actual != [2, classes]:
        raise InputError(f"{role} must return logits [N, {classes}], one per class, but returned {actual} for N = 2.")


def factory(name: str) -> Callable[..., nn.Module]:
    """Return the factory of the network ``name``; it takes classes, channels, image_size and more.

    Raises:
        InputError: there is none; the text lists the names and the other forms.
    """
    check_form(name)
    if name in BUILT_IN:
        return _imported_factory(BUILT_IN[name])
    prefix, _, rest = name.partition(":")
    if prefix == "torchvision":
        return torchvision_factory(rest)
    if prefix == "timm":
        return timm_factory(rest)
    return _imported_factory(name) if rest else REGISTERED[name].load()


def _imported_factory(name: str) -> Callable[..., nn.Module]:
    module, _, attribute = name.partition(":")
    try:
        made: Callable[..., nn.Module] = getattr(_imported(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"network {name!r} must name an importable module and a factory in it: {error}.") from None
    if not _makes_modules(made):
        raise InputError(f"network {name!r} must be a class of torch modules, or a function annotated to return one.")
    return made


def _imported(module: str) -> ModuleType:
    """Import a module and leave no bytecode: Python would take it for that of an edit in the same second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        importlib.invalidate_caches()
        return importlib.import_module(module)
    finally:
        sys.dont_write_bytecode = before


def _makes_modules(candidate: object) -> bool:
    if not inspect.isfunction(candidate):
        return isinstance(candidate, type) and issubclass(candidate, nn.Module)
    try:
        result = typing.get_type_hints(candidate).get("return")
    except (NameError, TypeError):  # an annotation that exists only for type checkers
        return False
    return isinstance(result, type) and issubclass(result, nn.Module)
