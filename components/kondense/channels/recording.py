"""What every layer of a network computes, with the channels that another network lacks hidden or left out."""

import contextlib
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kondense.artifacts.equivalence import seeded
from kondense.channels.groups import (
    WEIGHTED,
    ChannelGroup,
    axis_of_channels,
    input_slices,
    parts_of,
    weight_from_inputs,
    weighted,
)
from kondense.channels.surgery import restored
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
    """
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
        record = recorded(module, images_NCHW, kept, failing=True)
    finally:
        for hook in hooks:
            hook.remove()
    if record and not record[-1][0] and called == hidden.keys():
        return record
    with restored(module):
        silence(module, groups, removed)
        return recorded(module, images_NCHW, kept)


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
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
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
        parts = parts_of(layer)
        weight = layer.weight.detach()
        if parts == 1:
            weight = weight.index_fill(1, gone, 0.0)
        else:
            weight = weight_from_inputs(input_slices(weight, parts).index_fill(0, gone, 0.0), parts)
        layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)


def _read_by_layer(groups: Mapping[str, ChannelGroup], removed: Removed) -> dict[str, Tensor]:
    """Return the inputs that belong to ``removed`` channels, of every layer that reads some."""
    read = defaultdict(list)
    for name, channels in removed.items():
        for member in groups[name].members if len(channels) else ():
            if not member.output:
                read[member.name].append(member.entries[channels].flatten())
    return {name: torch.cat(entries) for name, entries in read.items()}
