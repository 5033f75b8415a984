"""Build any network from its name: built in, ``torchvision:<name>``, or ``package.module:factory``.

A factory is a class of torch modules or a function annotated to return one. A name that only an artifact gives is not
imported at all unless the user allows it (``allowed``).
"""

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from kondense.errors import InputError
from kondense.networks import lenet, mobilenet, resnet

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": lenet.lenet5,
    "lenet_cifar": lenet.lenet_cifar,
    "lenet300": lenet.lenet300,
    "resnet8": resnet.resnet8,
    "resnet20": resnet.resnet20,
    "resnet56": resnet.resnet56,
    "mobilenet_small": mobilenet.mobilenet_small,
}


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """How to build a network: a name and JSON arguments (``classes``, ``channels``, ``image_size``, ``width``)."""

    name: str
    arguments: Mapping[str, Any]


def check_network(name: str) -> None:
    """Raise ValueError, saying what would be right, unless ``name`` names a network; builds nothing."""
    factory(name)


def build(spec: NetworkSpec, *, seed: int = 0) -> nn.Module:
    """Build a network with weights drawn from ``seed``; the global generator is left as it was.

    Raises:
        ValueError: an unknown name, wrong arguments, or images that the network cannot take.
    """
    make = factory(spec.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = make(**spec.arguments)
        except (TypeError, AssertionError) as error:  # torchvision asserts what it is given
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
    """Return the factory that ``name`` stands for; it takes classes, channels, image_size and more.

    Raises:
        ValueError: there is none; the text lists the built-in names and the two other forms.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    prefix, _, rest = name.partition(":")
    if prefix == "torchvision" and rest:
        return _torchvision_factory(rest)
    if prefix and rest:
        return _imported_factory(prefix, rest)
    raise InputError(
        f"network must be one of {', '.join(sorted(NETWORKS))}, or torchvision:<name>, or package.module:factory,"
        f" but got {name!r}."
    )


def _imported_factory(module: str, attribute: str) -> Callable[..., nn.Module]:
    try:
        made: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        name = f"{module}:{attribute}"
        raise InputError(f"network {name!r} must name an importable module and a factory in it: {error}.") from None
    if not _makes_modules(made):
        raise InputError(
            f"network '{module}:{attribute}' must be a class of torch modules, or a function annotated to return one."
        )
    return made


def _makes_modules(candidate: object) -> bool:
    if not inspect.isfunction(candidate):
        return isinstance(candidate, type) and issubclass(candidate, nn.Module)
    try:
        result = typing.get_type_hints(candidate).get("return")
    except (NameError, TypeError):  # an annotation that exists only for type checkers
        return False
    return isinstance(result, type) and issubclass(result, nn.Module)


def _torchvision_factory(name: str) -> Callable[..., nn.Module]:
    from torchvision import models  # costs seconds, and only these networks need it

    names = models.list_models(module=models)  # those that classify
    if name not in names:
        raise InputError(f"torchvision's network must be one of {', '.join(names)}, but got {name!r}.")
    builder = models.get_model_builder(name)

    def make(classes: int, channels: int, image_size: int, width: float = 1.0) -> nn.Module:
        accepted, arguments = inspect.signature(builder).parameters, {}
        if width != 1.0 and name.startswith("mobilenet"):
            arguments["width_mult"] = width
        elif width != 1.0:
            raise InputError(f"torchvision:{name} has no width; width must be 1.0, but got {width}.")
        if "weights" in accepted:
            arguments["weights"] = None
        if name.startswith("vit_"):
            arguments["image_size"] = image_size  # the length of its position embedding
        module = builder(num_classes=classes, **arguments)
        if channels != 3:
            _replace_stem(module, channels)
        return module

    return make


def _replace_stem(module: nn.Module, channels: int) -> None:
    """Let the first convolution take ``channels`` instead of 3, in place."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d) and child.in_channels == 3:
            parent, _, leaf = name.rpartition(".")
            stem = nn.Conv2d(
                channels,
                child.out_channels,
                child.kernel_size,
                child.stride,
                child.padding,
                bias=child.bias is not None,
            )
            setattr(module.get_submodule(parent), leaf, stem)
            return
    raise InputError(f"the network has no convolution over 3 channels to adapt to images of {channels}.")
