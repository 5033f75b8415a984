"""The labels of results of which every element depends on one element of each operand (see ``labels``)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kondense.channels.labels import Trace, axis_of, spread, varies

Labels = Tensor | None
SEVERAL = "every channel meets several others"


def combine(trace: Trace, operands: Sequence[tuple[Labels, Sequence[int]]], shape: Sequence[int]) -> Labels:
    """Return the labels of a result of ``shape`` whose elements each depend on one of every operand.

    Args:
        trace: the channels that meet are tied; those that meet a tensor of a fixed size are pinned.
        operands: labels and shape of each, which broadcast to ``shape``.
        shape: of the result.
    """
    axis = _common_axis(operands, shape)
    if axis is not None:
        return _combine_along(trace, operands, shape, axis)
    total: Labels = None
    extent = [1] * len(shape)
    for labels, own in operands:
        reach = [1] * (len(shape) - len(own)) + list(own)
        wide = labels.expand(shape) if labels is not None else None
        total = _merge(trace, (total, extent), (wide, reach), shape)
        extent = [max(pair) for pair in zip(extent, reach, strict=True)]
    return total


def _common_axis(operands: Sequence[tuple[Labels, Sequence[int]]], shape: Sequence[int]) -> int | None:
    """Return the axis of ``shape``, from its end, that the labels of all operands depend on, if it is noted."""
    axes = set()
    for labels, own in operands:
        if labels is not None:
            noted = axis_of(labels)
            if noted is None:
                return None
            axes.add(noted[0] - len(own))
            if len(noted[1]) != shape[noted[0] - len(own)]:
                return None
    return axes.pop() if len(axes) == 1 else None


def _combine_along(
    trace: Trace, operands: Sequence[tuple[Labels, Sequence[int]]], shape: Sequence[int], axis: int
) -> Labels:
    """Return the same as ``combine`` where all labels depend on ``axis`` only."""
    total, extent = None, 1
    for labels, own in operands:
        size = own[axis] if len(own) >= -axis else 1
        noted = axis_of(labels) if labels is not None else None
        if noted is None and size == 1:
            continue
        total = _merge(trace, (total, [extent]), (noted[1] if noted else None, [size]), [shape[axis]])
        extent = max(extent, size)
    for labels, own in operands:
        if labels is not None and tuple(own) == tuple(shape) and labels.along[1] is total:  # type: ignore[attr-defined]
            return labels
    return spread(total, axis, shape) if total is not None else None


def _merge(
    trace: Trace, first: tuple[Labels, Sequence[int]], second: tuple[Labels, Sequence[int]], shape: Sequence[int]
) -> Labels:
    (ours, our_extent), (theirs, their_extent) = first, second
    if ours is None or theirs is None:
        held, extent = (theirs, our_extent) if ours is None else (ours, their_extent)
        if held is not None and _fixed(held, extent):
            trace.pin(held, "it is combined with a tensor of a fixed size")
        return held
    if ours is theirs:
        return ours
    one, other = together(ours, theirs)
    if torch.equal(one, other):
        return ours
    both = (one != 0) & (other != 0)
    for mine, absent, extent in ((one, other == 0, their_extent), (other, one == 0, our_extent)):
        alone = (mine != 0) & absent
        if bool(alone.any()) and _fixed(mine, extent):
            never = mine[alone][~torch.isin(mine[alone], mine[both])]  # others meet theirs elsewhere, as beside padding
            trace.pin(never, "it is combined with a tensor of a fixed size")
    pairs = (one[both].long() * (trace.labels + 1) + other[both]).unique()
    mine, partners = pairs // (trace.labels + 1), pairs % (trace.labels + 1)
    if len(pairs) <= max(len(mine.unique()), len(partners.unique())):
        trace.tie(mine, partners)
        return torch.where(one != 0, one, other).expand(shape)
    fewer, more, extent = (
        (other, one, their_extent) if len(mine.unique()) > len(partners.unique()) else (one, other, our_extent)
    )
    trace.pin(fewer, SEVERAL)
    if not _fixed(more, extent):
        return more.expand(shape)  # every one with every other: what stays does not hold the others
    trace.pin(more, SEVERAL)
    return None


def together(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return two label tensors of one shape with the axes narrowed to 1 along which neither changes."""
    for axis in range(first.ndim):
        if first.shape[axis] > 1 and first.stride(axis) == 0 and second.stride(axis) == 0:
            first, second = first.narrow(axis, 0, 1), second.narrow(axis, 0, 1)
    return first, second


def _fixed(labels: Tensor, extent: Sequence[int]) -> bool:
    """Return whether another operand of this shape has an element of its own for every channel."""
    return any(size > 1 and varies(labels, axis) for axis, size in enumerate(extent))
