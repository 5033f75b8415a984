"""Give the attentions of a network layers for their projections (see ``attention``), where that changes no output."""

import contextlib
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from kondense.artifacts.attention import SelfAttention, is_separable, takes_itself
from kondense.artifacts.equivalence import outputs, preserving
from kondense.artifacts.structure import replace


def separate_attention(module: nn.Module, batches: Sequence[Tensor]) -> list[str]:
    """Replace every attention of ``module`` that is only called on one sequence by a SelfAttention, in place.

    One that changes the outputs is left as it is.

    Args:
        module: the network.
        batches: images [N, C, H, W] (see ``probes``); without them, nothing is replaced.

    Returns:
        The names of the replaced modules.
    """
    found = _called_on_themselves(module, batches)
    found = preserving("separating the projections of", module, found, _separate, batches) if batches else []
    _separate(module, found)
    return found


def _called_on_themselves(module: nn.Module, batches: Sequence[Tensor]) -> list[str]:
    """Return the attentions that run, and only on one sequence without masks."""
    calls: dict[str, list[bool]] = {}
    handles = [
        part.register_forward_pre_hook(
            lambda _part, args, kwargs, name=name: calls.setdefault(name, []).append(takes_itself(*args, **kwargs)),
            with_kwargs=True,
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
    return [name for name, each in calls.items() if all(each)]


def _separate(module: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        attention = module.get_submodule(name)
        assert isinstance(attention, nn.MultiheadAttention)
        replace(module, name, SelfAttention(attention))
