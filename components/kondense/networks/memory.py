"""Name the code that builds a network given in memory, so that it can be saved as data and built again elsewhere.

A network whose code has no importable name is held in this process (see ``held``): everything works but saving it.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from kondense.errors import InputError
from kondense.logging import LOG
from kondense.networks.build import NetworkSpec, build
from kondense.networks.held import hold

PLAIN = (bool, int, float, str, tuple, type(None))


def network_spec_of(
    module: nn.Module, network: str | Callable[..., nn.Module] = "", arguments: Mapping[str, Any] | None = None
) -> NetworkSpec:
    """Return a spec that builds the architecture of ``module``; its weights may be any.

    Args:
        module: the network; not changed.
        network: its name (see ``kondense.networks.names``), or its factory: a class of modules, or a function annotated
            to return one. By default the network is recognised if it is one of torchvision or timm, or if its class
            can be called without arguments; any other one is held in this process. ``#OUTPUT`` alone is the key or
            index of the logits in its output.
        arguments: the factory's keyword arguments, JSON values.

    Raises:
        InputError: the code that is named cannot be imported elsewhere, or builds another architecture.
    """
    output = network if isinstance(network, str) and network.startswith("#") else ""
    if network and not output:
        spec = NetworkSpec(network if isinstance(network, str) else importable_name(network), dict(arguments or {}))
        difference = difference_of(build(spec), module)
        if difference:
            raise InputError(f"network {spec.name!r} with {spec.arguments} builds another architecture: {difference}.")
        return spec
    for spec in _library_specs(module):
        if _matches(spec, module):
            return NetworkSpec(spec.name + output, spec.arguments)
    try:
        spec = _class_spec(module, arguments or {})
        return NetworkSpec(spec.name + output, spec.arguments)
    except InputError as error:
        if arguments:
            raise
        return _held_spec(module, output, str(error))


def _held_spec(module: nn.Module, output: str, reason: str) -> NetworkSpec:
    """Return the spec of a network that is held in this process, since none of its code can be named."""
    name, _kept = hold(module, repr(_description(module)))  # until the spec has it
    spec = NetworkSpec(name + output, {})
    build(spec)
    LOG.warning("the model can be used but not saved: %s", reason)
    return spec


def _class_spec(module: nn.Module, arguments: Mapping[str, Any]) -> NetworkSpec:
    """Return the spec that calls the network's own class.

    Raises:
        InputError: it cannot be imported elsewhere, or builds another architecture.
    """
    cls = type(module)
    if cls.__module__.startswith("torch.nn."):
        raise InputError(f"no code is known that builds this {cls.__name__}; {_remedy('factory')}.")
    spec = NetworkSpec(importable_name(cls), dict(arguments))
    try:
        difference = difference_of(build(spec), module)
    except InputError as error:
        raise InputError(f"{cls.__name__} cannot be built again: {error} {_remedy(cls.__name__)}.") from error
    if difference:
        raise InputError(f"{cls.__name__}() builds another architecture: {difference}; {_remedy(cls.__name__)}.")
    return spec


def importable_name(factory: Callable[..., Any]) -> str:
    """Return ``package.module:factory``.

    Raises:
        InputError: another process cannot import the factory: it is a lambda, is defined in a function or in a notebook
            or script, or has no name.
    """
    home, name = getattr(factory, "__module__", ""), getattr(factory, "__qualname__", "")
    reason = ""
    if not home or not name:
        reason = "has no name"
    elif name.rpartition(".")[2] == "<lambda>":
        reason = "is a lambda"
    elif home == "__main__":
        reason = "is defined in __main__, a notebook or script"
    elif "." in name:
        reason = "is defined inside another function or class"
    elif getattr(importlib.import_module(home), name, None) is not factory:
        reason = f"is not what {home}:{name} imports"
    if reason:
        text = name.rpartition(".")[2] or repr(factory)
        raise InputError(f"network {text} {reason}, so that it cannot be built again elsewhere; {_remedy(text)}.")
    return f"{home}:{name}"


def difference_of(rebuilt: nn.Module, module: nn.Module) -> str:
    """Return the first difference between two architectures, or an empty string; weights do not count."""
    built, wanted = _description(rebuilt), _description(module)
    for name in [*wanted, *built]:
        if built.get(name) != wanted.get(name):
            return f"{name or 'the network'} is {wanted.get(name, 'absent')} in memory, but {built.get(name, 'absent')}"
    return ""


def _description(module: nn.Module) -> dict[str, str]:
    """Return the type and settings of every submodule, and the shape of every tensor, by name."""
    texts = {}
    for name, part in module.named_modules():
        settings = {
            key: value for key, value in sorted(vars(part).items()) if key[0] != "_" and isinstance(value, PLAIN)
        }
        settings.pop("training", None)
        texts[name] = f"{type(part).__name__}({part.extra_repr()}) {settings}".strip()
    return texts | {name: f"a tensor {list(tensor.shape)}" for name, tensor in module.state_dict().items()}


def _library_specs(module: nn.Module) -> Iterator[NetworkSpec]:
    """Yield specs of networks of torchvision and timm that ``module`` may be."""
    home = type(module).__module__
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    outputs = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    if not convolutions:
        return
    arguments: dict[str, Any] = {"classes": len(outputs[-1].weight), "channels": convolutions[0].in_channels}
    if home.startswith("torchvision.models."):
        from torchvision import models

        if isinstance(size := getattr(module, "image_size", None), int):
            arguments["image_size"] = size
        for name in models.list_models(module=models):
            if models.get_model_builder(name).__module__ == home:
                yield NetworkSpec(f"torchvision:{name}", arguments)
    config = getattr(module, "default_cfg", None)
    if home.startswith("timm.") and isinstance(config, Mapping):
        size = getattr(getattr(module, "patch_embed", None), "img_size", None)
        yield NetworkSpec(f"timm:{config['architecture']}", arguments | ({"image_size": size[0]} if size else {}))


def _matches(spec: NetworkSpec, module: nn.Module) -> bool:
    try:
        with torch.device("meta"):  # shapes only
            return not difference_of(build(spec), module)
    except (InputError, NotImplementedError, RuntimeError):
        return False


def _remedy(name: str) -> str:
    name = name if name.isidentifier() else "factory"
    return (
        f"put the code that builds it into an importable module and name it: network='package.module:{name}',"
        " arguments={...}"
    )
