"""Remove channels from a network: every tensor that has entries of theirs becomes smaller.

Shapes: weight [O, I / G, ...] of O outputs, I inputs and G groups; a norm's tensors [O].
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from kondense.channels.groups import (
    WEIGHTED,
    ChannelGroup,
    input_slices,
    is_depthwise,
    parts_of,
    weight_from_inputs,
)
from kondense.channels.heads import count_heads
from kondense.channels.labels import NORMS
from kondense.networks.layers import CONVOLUTIONS


@torch.no_grad()
def remove(module: nn.Module, groups: Mapping[str, ChannelGroup], removed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove channels from the layers of ``groups``, in place.

    Args:
        module: the network.
        groups: those of the network, or of one of the same shapes; afterwards they are invalid.
        removed: the channels [n] to remove from each group, by name. Tied parameters stay tied.

    Returns:
        The indices of the kept outputs of every layer that lost some, by module name.
    """
    count_heads(module, groups, removed)
    lost: dict[tuple[str, bool], list[Tensor]] = defaultdict(list)
    for name, channels in removed.items():
        for member in groups[name].members if len(channels) else ():
            lost[member.name, member.output].append(member.entries[channels].flatten())
    named = dict(module.named_modules(remove_duplicate=False))
    kept_outputs, ties = {}, _ties(named)
    for name, output in sorted(lost, key=lambda side: not side[1]):  # first outputs: then fewer inputs are copied
        layer, parts = named[name], lost[name, output]
        kept = np.ones(side_length(layer, output=output), dtype=bool)
        for part in parts:
            kept[part.numpy()] = False
        index = torch.from_numpy(np.flatnonzero(kept))
        if output:
            kept_outputs[name] = index
            _keep_outputs(layer, index)
        else:
            _keep_inputs(layer, index)
    for (name, key), others in ties.items():
        for other, other_key in others:
            named[other]._parameters[other_key] = named[name]._parameters[key]
    return kept_outputs


@contextlib.contextmanager
def restored(module: nn.Module, *, written: bool = False) -> Iterator[None]:
    """Put back the layers of a network, with their tensors and settings, when the block ends.

    Args:
        module: the network.
        written: the block writes to tensors: it gets copies of them. Else what it writes to one stays.
    """
    parts = list(module.modules())
    before = [(part, dict(part.__dict__), dict(part._parameters), dict(part._buffers)) for part in parts]
    copies: dict[int, Tensor | None] = {id(None): None}
    for part in parts if written else ():
        for key, parameter in part._parameters.items():
            if parameter is not None and id(parameter) not in copies:
                copies[id(parameter)] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
            part._parameters[key] = copies[id(parameter)]  # type: ignore[assignment]
        for key, buffer in part._buffers.items():
            if buffer is not None and id(buffer) not in copies:
                copies[id(buffer)] = buffer.clone()
            part._buffers[key] = copies[id(buffer)]
    try:
        yield
    finally:
        for part, settings, parameters, buffers in before:
            part.__dict__.clear()
            part.__dict__.update(settings)
            for tensors, earlier in ((part._parameters, parameters), (part._buffers, buffers)):
                tensors.clear()
                tensors.update(earlier)  # type: ignore[arg-type]


def _ties(named: Mapping[str, nn.Module]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return the parameters that stand in several modules: the first place, and the others."""
    places: dict[int, list[tuple[str, str]]] = defaultdict(list)
    seen: set[int] = set()
    for name, layer in named.items():
        if id(layer) not in seen:
            seen.add(id(layer))
            for key, parameter in layer._parameters.items():
                if parameter is not None:
                    places[id(parameter)].append((name, key))
    return {first: others for first, *others in places.values() if others}


def side_length(layer: nn.Module, *, output: bool) -> int:
    """Return the number of outputs or inputs of a layer."""
    if isinstance(layer, CONVOLUTIONS):
        return layer.out_channels if output else layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features if output else layer.in_features
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters
    assert isinstance(layer, NORMS)
    return layer.num_features


def _keep_outputs(layer: nn.Module, index: Tensor) -> None:
    for name, parameter in layer._parameters.items():
        if parameter is not None:
            layer._parameters[name] = _parameter(parameter.index_select(0, index), parameter)
    for name, buffer in layer._buffers.items():
        if buffer is not None and buffer.ndim:  # not the count of batches
            layer._buffers[name] = buffer.index_select(0, index)
    if isinstance(layer, CONVOLUTIONS):
        if is_depthwise(layer):
            multiplier = layer.out_channels // layer.groups
            layer.groups = layer.in_channels = len(index) // multiplier
        layer.out_channels = len(index)
    elif isinstance(layer, nn.Linear):
        layer.out_features = len(index)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(index)
    else:
        assert isinstance(layer, NORMS)
        layer.num_features = len(index)


def _keep_inputs(layer: nn.Module, index: Tensor) -> None:
    assert isinstance(layer, WEIGHTED)
    groups = parts_of(layer)
    if groups == 1:
        weight = layer.weight.index_select(1, index)
    else:
        weight = weight_from_inputs(input_slices(layer.weight, groups).index_select(0, index), groups)
    layer._parameters["weight"] = _parameter(weight, layer.weight)
    if isinstance(layer, CONVOLUTIONS):
        layer.in_channels = len(index)
    else:
        layer.in_features = len(index)


def _parameter(tensor: Tensor, before: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=before.requires_grad)
