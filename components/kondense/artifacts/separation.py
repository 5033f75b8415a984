"""Give the attentions of a network layers for their projections (see ``attention``), where that changes no output."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kondense.artifacts.attention import (
    CrossAttention,
    SelfAttention,
    is_separable,
    needs_weights,
    takes_itself,
    takes_others,
)
from kondense.artifacts.equivalence import outputs, preserving, seeded
from kondense.artifacts.structure import replace


def separate_attention(module: nn.Module, batches: Sequence[Tensor]) -> list[str]:
    """Give every attention of ``module`` layers for its projections, in place, if it is called as those can be.

    It becomes a SelfAttention if it is only called on one sequence without masks, else a CrossAttention. One that
    changes the outputs, or whose weights are asked for and used, is left as it is.

    Args:
        module: the network.
        batches: images [N, C, H, W] (see ``probes``); without them, nothing is replaced.

    Returns:
        The names of the replaced modules.
    """
    kinds, weighing = _kinds(module, batches)

    def separate(network: nn.Module, names: Iterable[str]) -> None:
        for name in names:
            attention = network.get_submodule(name)
            assert isinstance(attention, nn.MultiheadAttention)
            replace(network, name, kinds[name](attention))

    found = preserving("separating the projections of", module, list(kinds), separate, batches) if batches else []
    if any(name in weighing for name in found) and not _trains(module, found, separate, batches[-1]):
        found = [name for name in found if name not in weighing]
    separate(module, found)
    return found


def _kinds(module: nn.Module, batches: Sequence[Tensor]) -> tuple[dict[str, type[nn.Module]], set[str]]:
    """Return what the attentions that run can become, by name, and the names of those that are asked for weights."""
    calls: dict[str, list[tuple[bool, bool]]] = {}
    weighing: set[str] = set()

    def note(name: str, args: Any, kwargs: Any) -> None:
        calls.setdefault(name, []).append((takes_itself(*args, **kwargs), takes_others(*args, **kwargs)))
        if needs_weights(*args, **kwargs):
            weighing.add(name)

    handles = [
        part.register_forward_pre_hook(
            lambda _part, args, kwargs, name=name: note(name, args, kwargs), with_kwargs=True
        )
        for name, part in module.named_modules()
        if is_separable(part)
    ]
    try:
        for batch in batches if handles else ():
            with contextlib.suppress(Exception):  # from the network's own code: it does not take so many images
                outputs(module, batch)
    finally:
        for handle in handles:
            handle.remove()
    kinds: dict[str, type[nn.Module]] = {}
    for name, each in calls.items():
        itself, others = (all(taken) for taken in zip(*each, strict=True))
        one_width = module.get_submodule(name).in_proj_weight is not None
        if (itself and one_width) or others:
            kinds[name] = SelfAttention if itself and one_width else CrossAttention
    return kinds, weighing


def _trains(
    module: nn.Module, names: Sequence[str], separate: Callable[[nn.Module, Iterable[str]], None], batch: Tensor
) -> bool:
    """Return whether a network with separated attentions, which return no weights, runs in training mode, too."""
    changed = copy.deepcopy(module)
    separate(changed, names)
    try:
        with torch.no_grad(), seeded(0):
            changed.train()(batch)
    except Exception:  # from the network's own code
        return False
    return True
