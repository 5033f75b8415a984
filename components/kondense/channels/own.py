"""Parameters and buffers that a network holds itself, as members of groups: layer scales, tokens, positions, tables.

Which axis of such a tensor is one of channels shows where it meets them. Until then it carries the labels that each of
its axes would have, through views, slices and sums of its own.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kondense.channels.groups import OwnTensor
from kondense.channels.labels import Labelled, Trace, single_axis, spread

Follow = Callable[[Trace, Any, Sequence[Any], Mapping[str, Any], Sequence[Any]], list[Tensor | None] | None]


@contextlib.contextmanager
def watched(module: nn.Module, trace: Trace, wrap: Callable[[Tensor], Labelled]) -> Iterator[None]:
    """Give the tensors that no layer holds the labels of their axes, while the block runs.

    Args:
        module: the network.
        trace: of the pass.
        wrap: makes a labelled tensor of a value.
    """
    layers, seen = set(map(id, trace.layers.values())), dict[int, Labelled]()
    held: list[tuple[dict[str, Any], str, Tensor]] = []
    for name, part in module.named_modules():
        for tensors in (part._parameters, part._buffers) if id(part) not in layers else ():
            for key, tensor in tensors.items():
                if tensor is None or key in part._non_persistent_buffers_set or max((0, *tensor.shape)) < 2:
                    continue
                if id(tensor) not in seen:
                    seen[id(tensor)] = wrap(tensor.detach())
                    seen[id(tensor)].own = _axes(trace, name, key, tensor)
                held.append((tensors, key, tensor))
    try:
        for tensors, key, tensor in held:
            tensors[key] = seen[id(tensor)]
        yield
    finally:
        for tensors, key, tensor in held:
            if tensors.get(key) is seen[id(tensor)]:  # the network may have written another one
                tensors[key] = tensor


def _axes(trace: Trace, owner: str, key: str, tensor: Tensor) -> dict[str, Tensor]:
    """Return the labels of a tensor along each of its axes, by name of the axis; the same at every pass."""
    found = {}
    for axis, length in enumerate(tensor.shape):
        if length > 1:
            place = OwnTensor(owner, key, axis, length)
            trace.own[place.name] = place, trace.new_labels(length)
            found[place.name] = spread(trace.own[place.name][1], axis, tensor.shape)
    return found


def carried(  # noqa: PLR0917  # an operation and its rule
    trace: Trace,
    rule: Follow,
    function: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    results: Sequence[Any],
    leaves: Sequence[Labelled],
) -> list[dict[str, Tensor]]:
    """Return what the results of an operation on own tensors carry, by result."""
    found: list[dict[str, Tensor]] = [{} for _ in results]
    for name in dict.fromkeys(name for leaf in leaves for name in leaf.own):
        scratch = Trace({}, labels=trace.labels)
        for leaf in leaves:
            leaf.labels = leaf.own.get(name)
        try:
            followed = rule(scratch, function, args, kwargs, results)
        finally:
            for leaf in leaves:
                leaf.labels = None
        if followed is not None and not (scratch.pins or scratch.ties or scratch.statistics):
            for own, label in zip(found, followed, strict=True):
                if label is not None:
                    own[name] = label
    return found


@contextlib.contextmanager
def adopted(trace: Trace, own: Sequence[Labelled], labels: Sequence[Tensor]) -> Iterator[None]:
    """Let own tensors have the labels of the axis that meets the channels of ``labels``, while the block runs."""
    along = [found for found in map(single_axis, labels) if found is not None]
    changed = []
    for leaf in own:
        for name, axis, others in _meeting_axes(leaf, along):
            found = single_axis(leaf.own[name])
            assert found is not None
            trace.meet(name, output=True, labels=trace.own[name][1])
            trace.tie(found[1], others)
            leaf.labels = spread(torch.where(found[1] > 0, others, 0), axis, leaf.shape)
            changed.append(leaf)
    try:
        yield
    finally:
        for leaf in changed:
            leaf.labels = None


def _meeting_axes(leaf: Labelled, along: Sequence[tuple[int, Tensor]]) -> list[tuple[str, int, Tensor]]:
    """Return the axes of own tensors that stand where others have their channels, and where.

    They are those of one axis of ``leaf``: several if it was computed from several tensors.
    """
    met: list[tuple[str, int, Tensor]] = []
    for name, labels in leaf.own.items():
        found = single_axis(labels)
        for axis, others in along if not met else [each[1:] for each in met[:1]]:
            if found is not None and found[0] == axis and len(found[1]) == len(others):
                met.append((name, axis, others))
                break
    return met


def axis_at(leaf: Any, axis: int) -> tuple[str, Tensor] | None:
    """Return the first of ``axes_at``, if any."""
    return next(iter(axes_at(leaf, axis)), None)


def axes_at(leaf: Any, axis: int) -> list[tuple[str, Tensor]]:
    """Return the axes of own tensors that vary along ``axis`` of a value derived from them: names and labels.

    The labels [n] are those along the value's axis, which may hold each entry several times, or with zeros beside.
    """
    met = []
    for name, labels in leaf.own.items() if isinstance(leaf, Labelled) else ():
        found = single_axis(labels)
        if found is not None and found[0] == axis - (labels.ndim if axis >= 0 else 0):
            met.append((name, found[1]))
    return met


def own_channels(trace: Trace, found: tuple[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Return the labels of a value of ``shape`` whose last axis is one that ``axis_at`` found, as channels."""
    trace.meet(found[0], output=True, labels=trace.own[found[0]][1])
    return spread(found[1], -1, shape)


def meet_axis(trace: Trace, found: tuple[str, Tensor], along: Tensor) -> None:
    """Record that channels with the labels ``along`` [n] meet an axis that ``axis_at`` found."""
    name, labels = found
    trace.meet(name, output=True, labels=trace.own[name][1])
    trace.tie(labels, along)
