"""What every layer of a network computes, with the channels that another network lacks hidden or left out."""

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kondense.artifacts.equivalence import seeded
from kondense.artifacts.structure import RECURRENT
from kondense.channels.groups import (
    WEIGHTED,
    ChannelGroup,
    OwnTensor,
    axis_of_channels,
    by_input,
    from_inputs,
    weighted,
)
from kondense.channels.labels import Trace, unwrapped
from kondense.channels.surgery import forget, restored
from kondense.channels.tracing import Traced, labelled
from kondense.export.trace import layer_by_layer

PLACES = 8  # of each axis of a layer's outputs that are compared; a wrong channel shows in all of them

Removed = Mapping[str, Tensor]
Record = list[tuple[str, list[Tensor], list[tuple[int, ...]]]]  # layer, samples of its outputs, their shapes


def expected(
    module: nn.Module,
    groups: Mapping[str, ChannelGroup],
    removed: Removed,
    images_NCHW: Tensor,
    kept: Mapping[str, Tensor],
) -> Record:
    """Return the record of ``module`` in which no layer reads the ``removed`` channels.

    Their inputs are zeroed, which copies no weight; layers that the network does not call get weights with zeros.
    Statistics over channels are taken over the others.
    """
    if any(_is_special(groups[name]) for name, channels in removed.items() if len(channels)):
        return _without(module, groups, removed, images_NCHW, kept)
    hidden = _read_by_layer(groups, removed)
    called: set[str] = set()

    def hide(layer: nn.Module, inputs: tuple[Tensor, ...], name: str) -> tuple[Tensor, ...]:
        called.add(name)
        return (inputs[0].index_fill(axis_of_channels(layer), hidden[name], 0.0), *inputs[1:])

    hooks = [
        module.get_submodule(name).register_forward_pre_hook(lambda layer, inputs, name=name: hide(layer, inputs, name))
        for name in hidden
    ]
    try:
        with restored(module):
            record = recorded(module, images_NCHW, kept, failing=True)
    finally:
        for hook in hooks:
            hook.remove()
    if record and not record[-1][0] and called == hidden.keys():
        return record
    with restored(module):
        silence(module, groups, removed)
        return recorded(module, images_NCHW, kept)


def _is_special(group: ChannelGroup) -> bool:
    """Return whether others than the layers that read it see that a channel is lacking."""
    return group.statistics or any(isinstance(member.layer, (OwnTensor, *RECURRENT)) for member in group.members)


def _without(
    module: nn.Module,
    groups: Mapping[str, ChannelGroup],
    removed: Removed,
    images_NCHW: Tensor,
    kept: Mapping[str, Tensor],
) -> Record:
    """Return the record of a pass under labels, which tell what is computed from the ``removed`` channels."""
    lacking: dict[tuple[str, bool], list[Tensor]] = defaultdict(list)
    for name, channels in removed.items():
        for member in groups[name].members if len(channels) else ():
            lacking[member.name, member.output].append(member.entries[channels].flatten())
    computing = frozenset(name for group in groups.values() for name in group.computing)
    trace = dataclasses.replace(Trace.of(module), computing=computing)
    gone = {side: torch.cat(entries) for side, entries in lacking.items()}
    trace.lacking = gone

    def hide(layer: nn.Module, inputs: tuple[Any, ...], name: str) -> tuple[Any, ...]:
        value = unwrapped(inputs[0]).index_fill(axis_of_channels(layer), gone[name, False], 0.0)
        return (Traced(value, getattr(inputs[0], "labels", None), trace), *inputs[1:])

    hooks = [
        module.get_submodule(name).register_forward_pre_hook(lambda layer, inputs, name=name: hide(layer, inputs, name))
        for name, output in gone
        if not output
    ]
    try:
        with restored(module), labelled(module, trace):
            forget(module)
            return recorded(module, Traced(images_NCHW, None, trace), kept)
    finally:
        for hook in hooks:
            hook.remove()


def recorded(module: nn.Module, images_NCHW: Tensor, kept: Mapping[str, Tensor], *, failing: bool = False) -> Record:
    """Return samples of the outputs of every layer with weights, in the order of the pass, and the network's last.

    Args:
        module: the network, in evaluation mode.
        images_NCHW: the images.
        kept: indices of the outputs to return, by layer; all of the others.
        failing: end the record where the network fails.
    """
    record: Record = []

    def note(layer: nn.Module, name: str, output: object) -> None:
        output = unwrapped(output)
        if isinstance(output, Tensor):
            sample, shape = _sample(output, axis_of_channels(layer), kept.get(name))
            record.append((name, [sample], [shape]))
        else:
            record.append((name, [], []))

    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: note(layer, name, output))
        for name, layer in module.named_modules()
        if isinstance(layer, WEIGHTED)
    ]
    try:
        failures = (Exception,) if failing else ()
        with seeded(0), layer_by_layer(), contextlib.suppress(*failures):
            leaves = pytree.tree_leaves(module(images_NCHW))
            tensors = [unwrapped(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
            record.append(("", tensors, [tuple(tensor.shape) for tensor in tensors]))
    finally:
        for hook in hooks:
            hook.remove()
    return record


def _sample(output: Tensor, axis: int, kept: Tensor | None) -> tuple[Tensor, tuple[int, ...]]:
    """Return a layer's outputs at some places, all ``kept`` channels of them, and their shape at all places."""
    axis %= output.ndim
    shape = list(output.shape)
    shape[axis] = len(kept) if kept is not None else shape[axis]
    if any(size > PLACES for size in output.shape):
        steps = [1 if other == axis else -(-size // PLACES) for other, size in enumerate(output.shape)]
        output = output[tuple(slice(None, None, step) for step in steps)]
    return output.index_select(axis, kept) if kept is not None else output.clone(), tuple(shape)


@torch.no_grad()
def silence(module: nn.Module, groups: Mapping[str, ChannelGroup], removed: Removed) -> None:
    """Give every layer that reads ``removed`` channels of ``groups`` a new weight, in which theirs are zero."""
    for name, gone in _read_by_layer(groups, removed).items():
        layer = weighted(module.get_submodule(name))
        weight = from_inputs(layer, by_input(layer, layer.weight.detach()).index_fill(0, gone, 0.0))
        layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)


def _read_by_layer(groups: Mapping[str, ChannelGroup], removed: Removed) -> dict[str, Tensor]:
    """Return the inputs that belong to ``removed`` channels, of every layer that reads some."""
    read = defaultdict(list)
    for name, channels in removed.items():
        for member in groups[name].members if len(channels) else ():
            if not member.output:
                read[member.name].append(member.entries[channels].flatten())
    return {name: torch.cat(entries) for name, entries in read.items()}
