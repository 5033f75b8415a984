"""Remove channels from a network: every tensor that has entries of theirs becomes smaller.

Shapes: weight [O, I / G, ...] of O outputs, I inputs and G groups, that of a transposed convolution [I, O / G, ...];
a norm's tensors [O].
"""

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kondense.artifacts.structure import RECURRENT
from kondense.channels.groups import (
    WEIGHTED,
    ChannelGroup,
    OwnTensor,
    by_input,
    by_output,
    from_inputs,
    input_slices,
    is_depthwise,
    parts_of,
)
from kondense.channels.heads import count_heads
from kondense.channels.hidden_units import keep_hidden, keep_inputs
from kondense.channels.labels import NORMS
from kondense.channels.numbers import count_down
from kondense.networks.layers import CONVOLUTIONS, TRANSPOSED

COUNTS: tuple[tuple[Any, ...], ...] = (  # layers, and in which attributes they hold the number of outputs and inputs
    (CONVOLUTIONS, "out_channels", "in_channels"),
    (nn.Linear, "out_features", "in_features"),
    (RECURRENT, "hidden_size", "input_size"),
    (nn.GroupNorm, "num_channels"),
    (nn.PReLU, "num_parameters"),
    (NORMS, "num_features"),
)


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
    lost: dict[tuple[str, bool], list[NDArray[np.int64]]] = defaultdict(list)
    chosen = {name: channels for name, channels in removed.items() if len(channels)}
    for name, channels in chosen.items():
        chosen_n = channels.numpy()
        for member in groups[name].members:
            lost[member.name, member.output].append(member.entries.numpy()[chosen_n])
        for owner, attribute, entries in groups[name].numbers:
            count_down(module.get_submodule(owner), attribute, entries * len(channels))
    members = [member for name in chosen for member in groups[name].members]
    places = {member.name: member.layer for member in members if isinstance(member.layer, OwnTensor)}
    named = dict(module.named_modules(remove_duplicate=False))
    kept_outputs, ties = {}, _ties(named)
    for name, output in sorted(lost, key=lambda side: not side[1]):  # first outputs: then fewer inputs are copied
        place, parts = places.get(name), lost[name, output]
        layer = named[place.owner if place else name]
        kept = np.ones(axis_length(layer, place) if place else side_length(layer, output=output), dtype=bool)
        for part in parts:
            kept[part] = False
        index = torch.from_numpy(kept.nonzero()[0])
        if place is not None:
            _keep_along(layer, place, index)
        elif output:
            kept_outputs[name] = index
            _keep_outputs(layer, index)
        else:
            keep_inputs_of(layer, index)
    for (name, key), others in ties.items():
        for other, other_key in others:
            named[other]._parameters[other_key] = named[name]._parameters[key]
    forget(module)
    return kept_outputs


def forget(module: nn.Module) -> None:
    """Let modules drop what they keep from their tensors in evaluation, as those do whose ``train`` says so."""
    for part in module.modules():
        if type(part).train is not nn.Module.train:
            modes = [(each, each.training) for each in part.modules()]
            for mode in (True, modes[0][1]):
                part.train(mode)
            for each, mode in modes:
                each.training = mode


def copy_tensors(parts: Iterable[nn.Module]) -> None:
    """Give modules copies of the tensors that they hold; tied ones stay tied."""
    copies: dict[int, Tensor | None] = {id(None): None}
    for part in parts:
        for key, parameter in part._parameters.items():
            if parameter is not None and id(parameter) not in copies:
                copies[id(parameter)] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
            part._parameters[key] = copies[id(parameter)]  # type: ignore[assignment]
        for key, buffer in part._buffers.items():
            if buffer is not None and id(buffer) not in copies:
                copies[id(buffer)] = buffer.clone()
            part._buffers[key] = copies[id(buffer)]


@contextlib.contextmanager
def restored(module: nn.Module, *, written: bool = False) -> Iterator[None]:
    """Put back the layers of a network, with their tensors, settings and what these hold, when the block ends.

    Args:
        module: the network.
        written: the block writes to tensors: it gets copies of them. Else what it writes to one stays.
    """
    parts = list(module.modules())
    before = [(part, dict(part.__dict__), dict(part._parameters), dict(part._buffers)) for part in parts]
    held = [
        (value, value.copy())
        for _, settings, _, _ in before
        for name, value in settings.items()
        if type(value) in (dict, list) and name[0] != "_"
    ]
    if written:
        copy_tensors(parts)
    try:
        yield
    finally:
        for part, settings, parameters, buffers in before:
            part.__dict__.clear()
            part.__dict__.update(settings)
            for tensors, earlier in ((part._parameters, parameters), (part._buffers, buffers)):
                tensors.clear()
                tensors.update(earlier)  # type: ignore[arg-type]
        for container, content in held:
            container.clear()
            (container.update if isinstance(container, dict) else container.extend)(content)


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
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        return layer.normalized_shape[-1]
    return int(getattr(layer, _count_of(layer, output=output)))


def _count_of(layer: nn.Module, *, output: bool) -> str:
    """Return the attribute in which a layer holds the number of its outputs or inputs."""
    kind: Any = type(layer)  # which mypy does not take for hashable
    return _counts_of(kind)[0 if output else -1]


@functools.cache
def _counts_of(kind: type[nn.Module]) -> tuple[str, ...]:
    return next(tuple(names) for kinds, *names in COUNTS if issubclass(kind, kinds))


def axis_length(owner: nn.Module, place: OwnTensor) -> int:
    """Return the length of an axis of a tensor that a module holds itself."""
    return _holder(owner, place)[place.key].shape[place.axis]


def _holder(owner: nn.Module, place: OwnTensor) -> Any:
    return owner._parameters if place.key in owner._parameters else owner._buffers


def _keep_along(owner: nn.Module, place: OwnTensor, index: Tensor) -> None:
    """Keep a part of an own tensor along its axis."""
    tensors = _holder(owner, place)
    before = tensors[place.key]
    tensor = before.detach().index_select(place.axis, index)
    tensors[place.key] = _parameter(tensor, before) if isinstance(before, nn.Parameter) else tensor
    if isinstance(owner, nn.Embedding):
        setattr(owner, ("num_embeddings", "embedding_dim")[place.axis], len(index))


def _keep_outputs(layer: nn.Module, index: Tensor) -> None:
    if isinstance(layer, RECURRENT):
        keep_hidden(layer, index)
        return
    before, count = side_length(layer, output=True), len(index)
    depthwise = is_depthwise(layer)
    groups = count // (before // parts_of(layer)) if depthwise else parts_of(layer)
    by_inputs = layer.weight.shape[:2] if isinstance(layer, TRANSPOSED) else None
    for tensors in (layer._parameters, layer._buffers):
        for name, tensor in tensors.items():  # not the count of batches
            if tensor is None or not tensor.ndim:
                continue
            turned = tensor.shape[:2] == by_inputs
            rows = by_output(layer, tensor) if turned else tensor
            if len(rows) == before:
                smaller = rows.index_select(0, index)
                smaller = input_slices(smaller, groups) if turned else smaller
                tensors[name] = _like(smaller, tensor)  # type: ignore[assignment]
    if isinstance(layer, CONVOLUTIONS) and depthwise:
        layer.groups = layer.in_channels = groups
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        layer.normalized_shape = (count,)
        return
    if isinstance(layer, nn.GroupNorm) and layer.num_groups == layer.num_channels:
        layer.num_groups = count
    setattr(layer, _count_of(layer, output=True), count)


def keep_inputs_of(layer: nn.Module, index: Tensor) -> None:
    """Keep some of the inputs of a layer, in place; the index [n] names as many of each group of a convolution."""
    if isinstance(layer, RECURRENT):
        keep_inputs(layer, index)
        return
    assert isinstance(layer, WEIGHTED)
    sizes, axis = layer.weight.shape[:2], int(not isinstance(layer, TRANSPOSED))
    for tensors in (layer._parameters, layer._buffers):
        for name, tensor in tensors.items():  # the weight, and a mask or scales of it
            if tensor is None or tensor.ndim < len(sizes) or tensor.shape[axis] != sizes[axis]:
                continue
            if tensor.shape[1 - axis] not in (1, sizes[1 - axis]):
                continue
            if parts_of(layer) == 1:
                smaller = tensor.index_select(axis, index)
            else:
                smaller = from_inputs(layer, by_input(layer, tensor).index_select(0, index))
            tensors[name] = _like(smaller, tensor)  # type: ignore[assignment]
    if isinstance(layer, CONVOLUTIONS):
        layer.in_channels = len(index)
    else:
        layer.in_features = len(index)


def _parameter(tensor: Tensor, before: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=before.requires_grad)


def _like(tensor: Tensor, before: Tensor) -> Tensor:
    return _parameter(tensor, before) if isinstance(before, nn.Parameter) else tensor
