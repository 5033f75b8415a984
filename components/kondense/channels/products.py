"""What products of matrices do with labels (see ``labels``).

Shapes: n rows, m columns, k summed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from kondense.channels.combining import SEVERAL, Labels, combine
from kondense.channels.labels import Labelled, Trace, collapse, labels_of, single_axis, varies
from kondense.channels.own import axis_at, meet_axis, own_channels

MIXED = "it passes a product of matrices, which mixes its channels"
FIXED = "it passes a product of matrices, of which the other has a fixed size"


def multiply(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    """Products of matrices, [..., n, k] x [..., k, m].

    The channels may stand in one of n and m, in all of k, or in k for each head in a further axis: then those of a head
    are tied.
    """
    first, second = args[-2:]
    (rows, summed), (columns, others) = _summed(trace, labels_of(first), -1), _summed(trace, labels_of(second), -2)
    if rows is None and columns is None and (made := made_by(trace, first, second)) is not None:
        columns = own_channels(trace, made, [1, len(made[1])])
    for one, other, axis in ((summed, second, -2), (others, first, -1)):
        own = axis_at(other, axis) if one is not None and labels_of(other) is None else None
        if one is not None and own is not None and own[0] in trace.own and len(own[1]) == len(one):
            meet_axis(trace, own, one)
            summed, others = own[1], one
    if (summed is None) != (others is None):  # the other operand has a fixed number of rows or columns
        trace.pin(others if summed is None else summed, FIXED)
    if summed is not None and others is not None:
        trace.tie(summed, others)
        trace.statistics += [summed, others]
    shape = results[0].shape
    held = [label for label in (rows, columns) if label is not None and bool(label.any())]
    batches = [[axis for axis in range(len(shape) - 2) if varies(label, axis)] for label in held]
    if len(held) > 1 and (batches[0] != batches[1] or not batches[0] or varies(held[0], -2)):
        fewer = min(held, key=lambda label: len(collapse(label).unique()))  # every one meets every other
        trace.pin(fewer, SEVERAL)
        held = [label for label in held if label is not fewer]
    operands = [(label.expand(shape), shape) for label in held]
    return [combine(trace, [*operands, *[(labels_of(each), each.shape) for each in args[:-2]]], shape)]


def made_by(trace: Trace, first: Any, second: Any) -> tuple[str, Tensor] | None:
    """Return the axis of a tensor of the network's own whose columns a product makes, as those of a layer's weight."""
    if labels_of(second) is not None or (isinstance(first, Labelled) and first.own):
        return None
    found = axis_at(second, -1)
    return found if found is not None and found[0] in trace.own and bool(found[1].all()) else None


def _summed(trace: Trace, labels: Labels, axis: int) -> tuple[Labels, Labels]:
    """Return the labels of a matrix after a sum along an axis, and the channels along it, if these are all there are.

    Returns:
        Labels with length 1 along the axis, or None; and the labels [k], or None. Both are None for channels that stay.
    """
    if labels is None:
        return None, None
    if not varies(labels, axis):
        return labels.amax(axis, keepdim=True), None
    found = single_axis(labels)
    if found is not None:
        return None, found[1]
    compact = collapse(labels, keep=axis % labels.ndim)
    highest = compact.amax(axis, keepdim=True)
    batched = all(not varies(highest, other) for other in (-1, -2))
    if not batched or not bool(compact.all()):
        trace.pin(labels, MIXED)
        return None, None
    trace.tie(compact, highest.expand(compact.shape))
    shape = [*labels.shape]
    shape[axis] = 1
    return highest.expand(shape), None
