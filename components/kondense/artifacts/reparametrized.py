"""Weights that are computed from other parameters: weight norm, spectral norm, parametrizations, torch's pruning.

They matter while training only. ``bake`` makes ordinary parameters of them, with the values that the network uses in
evaluation mode.
"""

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

HOOKS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)


def reparametrized(module: nn.Module) -> list[str]:
    """Return the names of the layers whose weights are computed from other parameters."""
    return [name for name, part in module.named_modules() if parametrize.is_parametrized(part) or _hooks(part)]


def baked_copy(module: nn.Module) -> nn.Module:
    """Return a copy of ``module`` whose weights are all ordinary parameters."""
    for part in module.modules():
        for hook in _hooks(part):  # the value of the last run has a gradient's history, which cannot be copied
            name = _tensor_name(hook)
            if isinstance(value := part.__dict__.get(name), torch.Tensor):
                part.__dict__[name] = value.detach()
    return bake(copy.deepcopy(module))


@torch.no_grad()
def bake(module: nn.Module) -> nn.Module:
    """Make ordinary parameters of all computed weights, in place, and return ``module``."""
    for name in reparametrized(module):
        part = module.get_submodule(name)
        mode = part.training
        part.eval()
        if parametrize.is_parametrized(part):
            _remove_parametrizations(part)
        for hook in _hooks(part):
            _remove(part, hook)
        part.train(mode)
    return module


def _remove_parametrizations(part: nn.Module) -> None:
    """Make ordinary tensors of the parametrized ones.

    Not torch's remove_parametrizations: it changes the class, which copies of ``part`` share.
    """
    lists = part.parametrizations
    assert isinstance(lists, nn.ModuleDict)
    values = {name: getattr(part, name).detach().clone() for name in lists}
    trained = {name for name in lists if any(True for _ in lists[name].parameters())}
    del part.parametrizations
    part.__class__ = type(part).__bases__[0]
    for name, value in values.items():
        if name in trained:
            part.register_parameter(name, nn.Parameter(value))
        else:
            part.register_buffer(name, value)


def _hooks(part: nn.Module) -> list[object]:
    return [hook for hook in part._forward_pre_hooks.values() if isinstance(hook, HOOKS)]


def _tensor_name(hook: object) -> str:
    return str(hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name)  # type: ignore[attr-defined]


def _remove(part: nn.Module, hook: object) -> None:
    name = _tensor_name(hook)
    if isinstance(hook, WeightNorm):
        nn.utils.remove_weight_norm(part, name)
    elif isinstance(hook, SpectralNorm):
        nn.utils.remove_spectral_norm(part, name)
        # torch 2.14 looks for this hook without the wrapper that it puts around it, and leaves it behind.
        hooks = part._load_state_dict_pre_hooks
        for key in [key for key, each in hooks.items() if "SpectralNorm" in type(getattr(each, "hook", each)).__name__]:
            del hooks[key]
    else:
        prune.remove(part, name)
