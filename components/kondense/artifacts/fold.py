"""Fold batch norms into the preceding layers: the same function with fewer layers.

Shapes: weight [O, I, ...], statistics [O].
"""

import copy

import torch
from torch import nn

from kondense.artifacts.dataflow import calls, only_user, trace

FOLDS_INTO: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm2d: nn.Conv2d, nn.BatchNorm1d: nn.Linear}


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Return a copy of ``module``, in evaluation mode, with all foldable batch norms folded.

    A norm is foldable if its input is the output of a convolution or linear layer that has no other consumer. It
    becomes an Identity, and the layer gains a bias, which the Model artifact can express. No norm is folded if the
    network's control flow depends on data. Zero weights remain zero.

    Source: Jacob et al. 2018, section 3.2.
    """
    folded = copy.deepcopy(module).eval()
    for name, norm_name in foldable_norms(folded).items():
        _fold(folded.get_submodule(name), folded.get_submodule(norm_name))
        parent, _, leaf = norm_name.rpartition(".")
        setattr(folded.get_submodule(parent), leaf, nn.Identity())
    return folded


def foldable_norms(module: nn.Module) -> dict[str, str]:
    """Return the foldable batch norms by the name of the preceding layer."""
    graph = trace(module)
    if graph is None:
        return {}
    nodes = calls(graph)
    modules = dict(module.named_modules())
    norms = {}
    for name, node in nodes.items():
        user = only_user(node)
        if user is None or user.op != "call_module" or str(user.target) not in nodes:
            continue
        layer, norm = modules[name], modules[str(user.target)]
        if type(layer) is FOLDS_INTO.get(type(norm)) and _has_statistics(norm):
            norms[name] = str(user.target)
    return norms


def _has_statistics(norm: nn.Module) -> bool:
    return getattr(norm, "running_mean", None) is not None


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        # In float64, so that the product of three float32 numbers is rounded once.
        factor_O = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            factor_O = factor_O * norm.weight.double()
        shift_O = -norm.running_mean.double() * factor_O
        if norm.bias is not None:
            shift_O = shift_O + norm.bias.double()
        if layer.bias is not None:
            shift_O = shift_O + layer.bias.double() * factor_O
        kind = layer.weight.dtype
        weight = layer.weight.double() * factor_O.reshape(-1, *[1] * (layer.weight.ndim - 1))
        layer.weight = nn.Parameter(weight.to(kind))
        layer.bias = nn.Parameter(shift_O.to(kind))
