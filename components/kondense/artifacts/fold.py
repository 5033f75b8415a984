"""Fold batch norms into the preceding layers: the same function with fewer layers.

Shapes: weight [O, I, ...], statistics [O].
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from kondense.artifacts.dataflow import calls, find_graph, only_user, ranks
from kondense.artifacts.equivalence import preserving
from kondense.artifacts.reparametrized import baked_copy
from kondense.artifacts.structure import replace
from kondense.artifacts.ties import shared_layers
from kondense.logging import LOG

FOLDS_INTO: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm2d: nn.Conv2d, nn.BatchNorm1d: nn.Linear}
Batches = Sequence[Tensor]


def fold_batch_norms(module: nn.Module, batches: Batches = ()) -> nn.Module:
    """Return a copy of ``module``, in evaluation mode, with all foldable batch norms folded.

    A norm is foldable if its input is the output of a convolution or linear layer that has no other consumer and no
    tied weight, and both work on the same axis. It becomes an Identity, and the layer gains a bias, which the Model
    artifact can express. A norm is kept if folding it would change the outputs on ``batches``, and all are if the
    network's path depends on data. Zero weights remain zero.

    Args:
        module: the network; not changed.
        batches: images [N, C, H, W] (see ``probes``); without them, norms are kept where the axes are not certain.

    Source: Jacob et al. 2018, section 3.2.
    """
    folded = baked_copy(module).eval()
    _fold_pairs(folded, foldable_norms(folded, batches).items())
    return folded


def fold_pairs(module: nn.Module, norms: Mapping[str, str]) -> nn.Module:
    """Return a copy of ``module``, in evaluation mode, with ``norms`` of ``foldable_norms`` folded."""
    folded = baked_copy(module).eval()
    _fold_pairs(folded, norms.items())
    return folded


def foldable_norms(module: nn.Module, batches: Batches = ()) -> dict[str, str]:
    """Return the foldable batch norms by the name of the preceding layer (see ``fold_batch_norms``)."""
    modules = dict(module.named_modules())
    if not any(type(part) in FOLDS_INTO for part in modules.values()):
        return {}
    graph, reason = find_graph(module, batches)
    if graph is None:
        LOG.info(f"batch norms are kept, because the network's layers cannot be followed: {reason}")
        return {}
    nodes, known = calls(graph), ranks(graph, modules)
    barred = shared_layers(module) | {name for name, part in modules.items() if part._forward_hooks}
    pairs = []
    for name, node in nodes.items():
        user = only_user(node)
        if user is None or user.op != "call_module" or str(user.target) not in nodes or user.args[:1] != (node,):
            continue
        norm_name = str(user.target)
        layer, norm = modules[name], modules[norm_name]
        if type(layer) is FOLDS_INTO.get(type(norm)) and _has_statistics(norm) and not barred & {name, norm_name}:
            pairs.append((name, norm_name, node))
    certain = _on_the_same_axis(module, pairs, known, batches)
    return dict(preserving("folding", module, certain, _fold_pairs, batches))


def _on_the_same_axis(
    module: nn.Module, pairs: Sequence[tuple[str, str, fx.Node]], known: dict[fx.Node, int], batches: Batches
) -> list[tuple[str, str]]:
    """Return the pairs whose layer writes the axis that the norm reads.

    A convolution always does; a linear layer writes the last axis and its norm reads the second one.
    """
    seen = _ranks_seen(module, [name for name, _, _ in pairs], batches[:1])
    certain = []
    for name, norm, node in pairs:
        rank = 4 if isinstance(module.get_submodule(name), nn.Conv2d) else seen.get(name, known.get(node))
        if rank in (2, 4):
            certain.append((name, norm))
        else:
            reason = f"its input has {rank} axes" if rank else "the axes of its input are not known"
            LOG.info(f"batch norm {norm} is not folded into {name}: {reason}.")
    return certain


@torch.no_grad()
def _ranks_seen(module: nn.Module, names: Iterable[str], batches: Batches) -> dict[str, int]:
    """Return the number of axes of the outputs of the linear layers among ``names``."""
    linear = [name for name in names if isinstance(module.get_submodule(name), nn.Linear)]
    if not linear:
        return {}
    seen: dict[str, int] = {}
    watched = baked_copy(module).eval()
    for name in linear:
        watched.get_submodule(name).register_forward_hook(
            lambda _layer, _inputs, output, name=name: seen.update({name: output.ndim})
        )
    for batch_NCHW in batches:
        watched(batch_NCHW)
    return seen


def _has_statistics(norm: nn.Module) -> bool:
    return getattr(norm, "running_mean", None) is not None


def _fold_pairs(module: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    """Fold each norm into the layer before it, in place."""
    for name, norm in pairs:
        _fold(module.get_submodule(name), module.get_submodule(norm))
        replace(module, norm, nn.Identity())


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
