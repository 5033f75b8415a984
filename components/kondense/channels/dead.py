"""Channels whose removal does not change the outputs of a network."""

import copy
import functools
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from kondense.artifacts.structure import RECURRENT
from kondense.channels.groups import (
    WEIGHTED,
    ChannelGroup,
    Member,
    OwnTensor,
    axis_of_channels,
    by_input,
    by_output,
    weighted,
)

Range = tuple[Tensor, Tensor]


@torch.no_grad()
def dead_channels(module: nn.Module, groups: Mapping[str, ChannelGroup], images_NCHW: Tensor) -> dict[str, Tensor]:
    """Return the dead channels, by group; every group keeps at least one channel.

    A channel is dead if its weights in all consumers are zero, or if it is zero itself: its producer's weights are
    zero, so that it is the same for all images, and it is zero for ``images_NCHW``.

    Args:
        module: the network, in evaluation mode.
        groups: its groups. Those with grouped convolutions, which must lose the same number in each block, are skipped.
        images_NCHW: a few images, normalised.
    """
    ranges = _input_ranges(module, groups, images_NCHW)
    dead = {}
    for name, group in _separable(groups).items():
        silent_K = _all(
            ((ranges[reader.name][0] == 0) & (ranges[reader.name][1] == 0))[reader.entries].all(1)
            for reader in _readers(group)
        )
        unread_K = _all(_zero_inputs(module, reader) for reader in _readers(group))
        dead_K = unread_K | (_zero_outputs(module, group) & silent_K)
        if dead_K.all():
            dead_K[0] = False
        if dead_K.any():
            dead[name] = dead_K.nonzero().flatten()
    return dead


@torch.no_grad()
def fold_constants(module: nn.Module, groups: Mapping[str, ChannelGroup], images_NCHW: Tensor) -> set[str]:
    """Fold constant channels into the biases of their consumers, in place.

    Their weights in the consumers become zero, so that the channel is dead. Channels are skipped if a consumer pads
    with zeros, so that its input is not constant, or has no bias.

    Args:
        module: the network, in evaluation mode.
        groups: its groups.
        images_NCHW: a few images, normalised.

    Returns:
        The layers with changed biases.
    """
    changed: set[str] = set()
    ranges = _input_ranges(module, groups, images_NCHW)
    for group in _separable(groups).values():
        readers = _readers(group)
        if not all(_folds(module.get_submodule(reader.name)) for reader in readers):
            continue
        low_high = [(ranges[reader.name], reader.entries) for reader in readers]
        constant_K = _zero_outputs(module, group) & _all(
            (low == high)[entries].all(1) for (low, high), entries in low_high
        )
        for reader in readers:
            layer = weighted(module.get_submodule(reader.name))
            assert layer.bias is not None
            entries_E = reader.entries[constant_K].flatten()
            read_OE = layer.weight[:, entries_E].double()
            if not read_OE.any():
                continue
            summed_OE = read_OE.flatten(2).sum(2) if read_OE.ndim > 2 else read_OE
            layer.bias += (summed_OE @ ranges[reader.name][0][entries_E].double()).to(layer.bias.dtype)
            layer.weight[:, entries_E] = 0.0
            changed.add(reader.name)
    return changed


def _separable(groups: Mapping[str, ChannelGroup]) -> dict[str, ChannelGroup]:
    return {name: group for name, group in groups.items() if group.blocks == 1 and _readers(group) and _plain(group)}


def _plain(group: ChannelGroup) -> bool:
    """Return whether only layers with weights read the channels, each for itself."""
    readers = all(isinstance(reader.layer, WEIGHTED) for reader in _readers(group))
    own = any(isinstance(member.layer, (OwnTensor, *RECURRENT)) for member in group.members)
    return readers and not own and not group.statistics


def _readers(group: ChannelGroup) -> list[Member]:
    return [member for member in group.members if not member.output]


def _folds(layer: nn.Module) -> bool:
    """Return whether a constant input of this layer can be folded into its bias."""
    unpadded = type(layer) is nn.Linear or (  # other classes may pad in their forward
        type(layer) is nn.Conv2d and layer.groups == 1 and not any(layer.padding)
    )
    return unpadded and layer.bias is not None


def _all(masks: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(masks)).all(0)


def _zero_outputs(module: nn.Module, group: ChannelGroup) -> Tensor:
    """Return for each channel whether the weights of its producers are all zero, [channels]."""
    makers = [member for member in group.members if member.output and isinstance(member.layer, WEIGHTED)]
    layers = [(weighted(module.get_submodule(maker.name)), maker.entries) for maker in makers]
    weights = [(by_output(layer, layer.weight), entries) for layer, entries in layers]
    return _all((weight.flatten(1) == 0).all(1)[entries].all(1) for weight, entries in weights)


def _zero_inputs(module: nn.Module, member: Member) -> Tensor:
    """Return for each channel whether its weights in this consumer are all zero, [channels]."""
    layer = weighted(module.get_submodule(member.name))
    slices = by_input(layer, layer.weight)
    return (slices.flatten(1) == 0).all(1)[member.entries].all(1)


def _input_ranges(module: nn.Module, groups: Mapping[str, ChannelGroup], images_NCHW: Tensor) -> dict[str, Range]:
    """Return the minimum and the maximum of every input of the consumers, by layer."""
    names = {reader.name for group in groups.values() for reader in _readers(group)}
    ranges: dict[str, Range] = {}
    watched = copy.deepcopy(module).eval()

    def watch(name: str, dimension: int, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values_IN = inputs[0].movedim(dimension, 0).flatten(1)
        low, high = values_IN.amin(1), values_IN.amax(1)
        if name in ranges:  # the layer is called twice
            low, high = torch.minimum(low, ranges[name][0]), torch.maximum(high, ranges[name][1])
        ranges[name] = low, high

    for name in names:
        layer = watched.get_submodule(name)
        layer.register_forward_pre_hook(functools.partial(watch, name, axis_of_channels(layer)))
    watched(images_NCHW)
    return ranges
