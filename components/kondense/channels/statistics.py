"""Statistics over channels: norms whose mean is taken over them, sums, softmax, products of all with all.

Without some channels the statistic is that of the others. That is another function, which fine-tuning repairs, so what
a proof compares with is the whole network with every statistic taken over the channels that are kept.

Shapes: N images, C channels in G groups; n labels along an axis.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kondense.channels.labels import Labelled, Trace, meeting, single_axis, unwrapped, varies
from kondense.channels.own import axis_at, meet_axis, own_channels

SOFTMAX = {"_softmax", "softmax"}


def layer_norm(inputs: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Run ``torch.nn.functional.layer_norm``: the channels pass, if it is over them."""

    def run(values: Tensor, length: int, weight_n: Tensor | None, bias_n: Tensor | None) -> Tensor:
        return F.layer_norm(values, [length], weight_n, bias_n, eps)

    return _norm(inputs, normalized_shape, weight, bias, run)


def rms_norm(inputs: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """Run ``torch.nn.functional.rms_norm``: the channels pass, if it is over them."""

    def run(values: Tensor, length: int, weight_n: Tensor | None, _: Tensor | None) -> Tensor:
        return F.rms_norm(values, [length], weight_n, eps)

    return _norm(inputs, normalized_shape, weight, None, run)


def _norm(inputs: Any, normalized_shape: Sequence[int], weight: Any, bias: Any, run: Callable[..., Tensor]) -> Any:
    if not isinstance(inputs, Labelled) or len(normalized_shape) != 1:
        return NotImplemented
    if inputs.labels is None and (held := axis_at(inputs, -1)) is not None:
        inputs = type(inputs)(inputs.value, own_channels(inputs.record, held, inputs.shape), inputs.record)
    if inputs.labels is None:
        return NotImplemented
    found = single_axis(inputs.labels)
    if found is None or found[0] != -1:
        return NotImplemented
    trace, labels = inputs.record, found[1]
    if not _meet(trace, inputs.labels, labels, [(weight, 0), (bias, 0)]):
        return NotImplemented
    trace.statistics.append(labels)
    kept = trace.kept(labels)
    tensors = (unwrapped(weight), unwrapped(bias))
    if kept is None:
        return type(inputs)(run(inputs.value, len(labels), *tensors), inputs.labels, trace)
    parts = [tensor.index_select(0, kept) if tensor is not None else None for tensor in tensors]
    some = run(inputs.value.index_select(-1, kept), len(kept), *parts)
    return type(inputs)(torch.zeros_like(inputs.value).index_copy(-1, kept, some), inputs.labels, trace)


def group_norm(inputs: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Run ``torch.nn.functional.group_norm``: the channels pass; each group must lose the same number."""
    if not isinstance(inputs, Labelled) or inputs.labels is None or not varies(inputs.labels, 1):
        return NotImplemented
    trace, labels = inputs.record, meeting(inputs.record, inputs.labels, 1)
    if not _meet(trace, inputs.labels, labels, [(weight, 0), (bias, 0)]):
        return NotImplemented
    if num_groups < inputs.shape[1]:
        trace.statistics.append(labels)
        trace.splits.add(num_groups)
    kept = trace.kept(labels)
    kept = None if kept is not None and len(kept) % num_groups else kept
    tensors = (unwrapped(weight), unwrapped(bias))
    if kept is None or num_groups == inputs.shape[1]:
        return type(inputs)(F.group_norm(inputs.value, num_groups, *tensors, eps), inputs.labels, trace)
    parts = [tensor.index_select(0, kept) if tensor is not None else None for tensor in tensors]
    some = F.group_norm(inputs.value.index_select(1, kept), num_groups, parts[0], parts[1], eps)
    return type(inputs)(torch.zeros_like(inputs.value).index_copy(1, kept, some), inputs.labels, trace)


def _meet(trace: Trace, labels: Tensor, along: Tensor, held: Sequence[tuple[Any, int]]) -> bool:
    """Record that channels pass a norm with these tensors; return False if one is computed."""
    tensors = [tensor for tensor, _ in held if tensor is not None]
    names = next((trace.owners[id(tensor)] for tensor in tensors if id(tensor) in trace.owners), [])
    own = dict(found for tensor, axis in held if (found := axis_at(tensor, axis)) is not None)
    if not tensors:
        names = [trace.running] if trace.running else []
    elif not names and len(own) < len(tensors):
        return False
    for name in names:
        trace.meet(name, output=True, labels=along)
    for found in own.items() if not names else ():
        meet_axis(trace, found, along)
    return True


def over_kept(trace: Trace, kind: str, args: Sequence[Any], axes: Callable[[], Sequence[int]]) -> Sequence[Any]:
    """Return the arguments of an operation that takes a statistic, without the channels that are lacking.

    Args:
        trace: of a pass without some channels.
        kind: the operation's name.
        args: its arguments.
        axes: returns the axes that it reduces.
    """
    if kind in SOFTMAX:
        found = _found(args[0], (args[1],))
        lost = trace.lost(found[1]) if found else None
        if found and lost is not None:
            return (args[0].value.index_fill(found[0], lost, -torch.inf), *args[1:])
        return args
    found = _found(args[0], axes())
    kept = trace.kept(found[1]) if found else None
    return (args[0].value.index_select(found[0], kept), *args[1:]) if found and kept is not None else args


def _found(operand: Any, axes: Sequence[int]) -> tuple[int, Tensor] | None:
    """Return the axis that the channels of an operand stand along, with their labels, if it is one of ``axes``."""
    if not isinstance(operand, Labelled) or operand.labels is None:
        return None
    found = single_axis(operand.labels)
    return found if found is not None and found[0] in [axis % operand.ndim - operand.ndim for axis in axes] else None


def without_gone(trace: Trace, operand: Any, axis: int) -> Any:
    """Return an operand of a product with zeros where the channels along ``axis`` are lacking."""
    if not isinstance(operand, Labelled) or operand.labels is None or not varies(operand.labels, axis):
        return operand
    found = single_axis(operand.labels)
    lost = trace.lost(found[1]) if found else None
    if found is None or lost is None:
        return operand
    made = type(operand)(operand.value.index_fill(found[0], lost, 0.0), operand.labels, trace)
    made.own = operand.own
    return made


STATISTICS: dict[Any, Callable[..., Any]] = {
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    F.group_norm: group_norm,
}
