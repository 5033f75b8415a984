"""What operations do with labels (see ``labels``).

Shapes: N images, C channels, P positions.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from kondense.channels.combining import Labels, combine, together
from kondense.channels.heads import norm_of_heads
from kondense.channels.labels import (
    Labelled,
    Trace,
    alike,
    axis_of,
    collapse,
    labels_of,
    meeting,
    profile,
    reshaped,
    single_axis,
    spread,
    tensors_of,
    unwrapped,
    varies,
)
from kondense.channels.own import adopted, carried
from kondense.channels.products import made_by, multiply
from kondense.channels.statistics import SOFTMAX, over_kept, without_gone

SAME = {
    *("clone", "_to_copy", "detach", "alias", "contiguous", "lift_fresh", "dropout", "native_dropout", "tril", "triu"),
    *("conj", "_conj", "resolve_conj", "bernoulli"),
}
LIKE = {
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty"),
}
MOVES = {
    *("permute", "transpose", "t", "unsqueeze", "squeeze", "slice", "select", "split", "split_with_sizes", "unbind"),
    *("flip", "roll", "repeat", "index_select", "index", "unfold", "pixel_shuffle", "pixel_unshuffle", "expand"),
    *("channel_shuffle", "native_channel_shuffle", "diagonal", "unsafe_split", "unsafe_split_with_sizes"),
    *("embedding", "gather"),
}
RESHAPES = {"view", "_unsafe_view", "_reshape_alias", "reshape"}
REDUCTIONS = {
    *("sum", "mean", "amax", "amin", "max", "min", "var", "std", "prod", "argmax", "argmin", "any", "all", "median"),
    *("logsumexp", "linalg_vector_norm", "norm", "var_mean", "std_mean"),
}
POSITIONS = {"argmax", "argmin", "any", "all", "median"}  # of REDUCTIONS: no statistic of the channels that are left
EXTREMES = {"amax", "amin", "max", "min"}
ALONG = {"_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "sort"}
POINTWISE = {
    *("hardswish", "hardsigmoid", "_prelu_kernel", "mish", "fill", "zero", "copy", "rsub", "log_sigmoid_forward"),
    *("complex", "polar", "angle"),
}
PER_MAP = (
    *("upsample_", "_upsample_", "avg_pool", "max_pool", "adaptive_", "_adaptive_", "reflection_pad"),
    *("replication_pad", "fractional_max_pool", "grid_sampler"),
)
SPECTRA = ("_fft_", "view_as_complex", "view_as_real")
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}
WORDS = {  # of operations that torch names otherwise than people do: a part of the name, and what it is
    "convolution": "a convolution of computed inputs or weights",
    "rnn": "a recurrent layer",
    "lstm": "a recurrent layer",
    "gru": "a recurrent layer",
    "index_put": "an assignment to an index",
    "im2col": "unfold",
    "col2im": "fold",
    "fft": "a Fourier transform",
    "layer_norm": "a layer norm",
    "group_norm": "a norm in groups",
    "batch_norm": "a batch norm",
}
STATISTICS = {"native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"}


Rule = Callable[["Trace", Any, Sequence[Any], Mapping[str, Any], Sequence[Any]], list[Labels] | None]


def follow(
    trace: Trace,
    function: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    results: Sequence[Any],
    *,
    tensors: Sequence[Tensor],
) -> list[Labels]:
    """Return the labels of every result of an operation of torch's dispatcher.

    Args:
        trace: what is learnt is recorded in it.
        function: the operation.
        args: its arguments; labelled tensors among them.
        kwargs: further ones.
        results: its results on the values, in one list.
        tensors: all tensors among the arguments.
    """
    labelled = [leaf for leaf in tensors if isinstance(leaf, Labelled) and leaf.labels is not None]
    if not labelled:
        if function.overloadpacket.__name__ in PRODUCTS and made_by(trace, *args[-2:]) is not None:
            return _followed(trace, function, args, kwargs, results, labelled=labelled)
        return [None] * len(results)
    own = [leaf for leaf in tensors if isinstance(leaf, Labelled) and leaf.labels is None and leaf.own]
    if own:
        with adopted(trace, own, [leaf.labels for leaf in labelled if leaf.labels is not None]):
            return _followed(trace, function, args, kwargs, results, labelled=labelled)
    return _followed(trace, function, args, kwargs, results, labelled=labelled)


def follow_own(
    trace: Trace,
    function: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    results: Sequence[Any],
    *,
    tensors: Sequence[Tensor],
) -> list[dict[str, Tensor]]:
    """Return what every result carries of the tensors of the network's own among the arguments."""
    leaves = [leaf for leaf in tensors if isinstance(leaf, Labelled)]
    rule, in_place = _rule_of(function)
    if not all(leaf.own for leaf in leaves) or rule is None or in_place:
        return [{} for _ in results]
    if len(leaves) > 1 and rule is _pointwise and all(leaf.shape == results[0].shape for leaf in leaves):
        return [{name: labels for leaf in leaves for name, labels in leaf.own.items()}]
    return carried(trace, rule, function, args, kwargs, results, leaves)


def seen_by(trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
    """Return the arguments of an operation in a pass without some channels: statistics are taken over the others."""
    kind = function.overloadpacket.__name__
    if kind in REDUCTIONS or kind in SOFTMAX:
        return over_kept(trace, kind, args, lambda: _axes_of(_bound(function, args, kwargs), args[0].ndim))
    if kind in PRODUCTS:
        return (*args[:-2], without_gone(trace, args[-2], -1), without_gone(trace, args[-1], -2))
    return (without_gone(trace, args[0], 1), *args[1:]) if kind == "deform_conv2d" else args


def _followed(
    trace: Trace,
    function: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    results: Sequence[Any],
    *,
    labelled: Sequence[Labelled],
) -> list[Labels]:
    rule, in_place = _rule_of(function)
    labels = rule(trace, function, args, kwargs, results) if rule else None
    if labels is None or (in_place and _escapes(args[0], labels[0])):
        name = function.overloadpacket.__name__
        for leaf in labelled:
            trace.pin(leaf.labels, f"it passes {_in_words(name)}, which mixes its channels or is not known")
        return [args[0].labels if in_place and isinstance(args[0], Labelled) else None] * len(results)
    return labels


def _in_words(name: str) -> str:
    """Return an operation as people call it; torch's name where that is the same.

    >>> [_in_words(name) for name in ("bmm", "mkldnn_rnn_layer", "cumsum", "_thnn_fused_lstm_cell")]
    ['a product of matrices', 'a recurrent layer', 'cumsum', 'a recurrent layer']
    """
    if name in PRODUCTS:
        return "a product of matrices"
    return next((words for part, words in WORDS.items() if part in name), name.strip("_"))


@functools.cache
def _rule_of(function: Any) -> tuple[Rule | None, bool]:
    """Return the rule of an operation, or None if there is none, and whether it writes to its first argument."""
    name, in_place = function.overloadpacket.__name__, function._schema.is_mutable
    kind = name.rstrip("_") if in_place else name
    return (_rule(kind, function) if not in_place or _is_pointwise(kind, function) else None), in_place


def _rule(kind: str, function: Any) -> Rule | None:
    """Return the rule of a kind of operation, or None if there is none."""
    rules: list[tuple[bool, Rule]] = [
        (kind in SAME or kind in LIKE, _same),
        (kind in MOVES, _move),
        (kind in RESHAPES, _reshape),
        (kind in ("cat", "stack"), _join),
        (kind == "constant_pad_nd", _pad),
        (kind in REDUCTIONS, _reduce),
        (kind in ALONG, _along),
        (kind in PRODUCTS, multiply),
        (kind.startswith(PER_MAP), _per_map),
        (kind in STATISTICS, _statistics),
        (kind == "glu", _gate),
        (kind == "native_layer_norm", norm_of_heads),
        (kind == "deform_conv2d", _deformed),
        (kind == "im2col", _patches),
        (kind == "col2im", _unpatched),
        (kind.startswith(SPECTRA), _spectrum),
        (_is_pointwise(kind, function), _pointwise),
    ]
    return next((rule for applies, rule in rules if applies), None)


def _is_pointwise(kind: str, function: Any) -> bool:
    return kind in POINTWISE or (torch.Tag.pointwise in function.tags and kind not in SAME)


def _escapes(target: Any, labels: Labels) -> bool:
    """Return whether an operation in place writes labels that others, who share the memory, would not see."""
    if labels is None:
        return False
    before = target.labels if isinstance(target, Labelled) else None
    if before is labels:
        return False
    return before is None or not torch.equal(*together(before, labels))


def _same(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    labels = args[0].labels
    if function.overloadpacket.__name__ in LIKE and not any(varies(labels, axis) for axis in range(labels.ndim)):
        labels = None  # of one channel, but its length is no count of channels
    return [labels if result.shape == args[0].shape else None for result in results]


def _move(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    """Move the labels by the same operation."""
    if labels_of(args[0]) is None:
        return None  # labelled indices, such as a buffer of the network's own, into a tensor or table of none
    moved = _apply(function, args[0].labels, args[1:], kwargs)
    labels = pytree.tree_leaves(moved) if moved is not None else []
    if [label.shape for label in labels] != [result.shape for result in results]:
        return None
    if len(results) > 1:
        trace.splits.add(len(results))
    return labels


def _apply(function: Any, labels: Labels, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    try:
        return function(labels, *unwrapped(args), **unwrapped(kwargs))
    except (RuntimeError, NotImplementedError, IndexError):  # the operation does not take integers
        assert labels is not None
        return pytree.tree_map(
            lambda part: part.to(torch.int32), function(labels.double(), *unwrapped(args), **unwrapped(kwargs))
        )


def _reshape(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    before, labels = args[0].labels, reshaped(args[0].labels, results[0].shape)
    if before.shape != labels.shape and before.ndim < labels.ndim:
        trace.splits.update(size for size in labels.shape if 1 < size < before.numel())
    return [labels]


def _join(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    parts = [part for part in args[0] if part.numel() or part.ndim > 1]
    axis %= results[0].ndim
    joined = "cat" in str(function)
    labels = [_of_part(trace, part, axis if joined else None) for part in parts]
    for other in reversed(range(labels[0].ndim)):  # joined at length 1, axes cost nothing
        own = other if joined or other < axis else other + 1
        if own != axis and all(label.stride(other) == 0 or label.shape[other] == 1 for label in labels):
            labels = [label.narrow(other, 0, 1) for label in labels]
    return [function(labels, axis).expand(results[0].shape)]


def _of_part(trace: Trace, part: Tensor, axis: int | None) -> Tensor:
    """Return the labels of what is joined along an axis.

    A state that begins with zeros gets labels there: what stands in its place later may be channels.
    """
    held = labels_of(part)
    if held is not None:
        return held
    if axis is not None and part.shape[axis] > 1 and _reach(part)[axis] == 1:
        return spread(trace.new_labels(part.shape[axis]), axis, part.shape)
    return torch.zeros((), dtype=torch.int32).expand(part.shape)


def _pad(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    return [function(args[0].labels, args[1], 0)]


def _reduce(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    given = _bound(function, args, kwargs)
    labels, kept = given["self"].labels, bool(given.get("keepdim", False))
    axes = _axes_of(given, labels.ndim)
    noted = axis_of(labels)
    if noted and all(axis % labels.ndim != noted[0] for axis in axes):
        place = noted[0] if kept else noted[0] - sum(axis % labels.ndim < noted[0] for axis in axes)
        return [spread(noted[1], place, result.shape) for result in results]
    kind = function.overloadpacket.__name__
    if any(varies(labels, axis) for axis in axes) and not (kind in EXTREMES and _tie_along(trace, labels, axes)):
        found = single_axis(labels)
        if kind in POSITIONS or (found is None and not _tie_along(trace, labels, axes)):
            return None
        if found is not None:
            trace.statistics.append(found[1])
            return [None] * len(results)
    for axis in sorted({axis % labels.ndim for axis in axes}, reverse=True):
        labels = labels.narrow(axis, 0, 1) if labels.stride(axis) == 0 else labels.amax(axis, keepdim=True)
        labels = labels if kept else labels.squeeze(axis)
    return [labels if result.shape == labels.shape else None for result in results]


def _tie_along(trace: Trace, labels: Tensor, axes: Sequence[int]) -> bool:
    """Tie the channels that meet in one result, as those of a maxout unit; return whether others are left."""
    compact = collapse(labels)
    highest = compact.amax(list(axes), keepdim=True)
    if len(highest.unique()) < 2 or not bool(compact.all()):
        return False
    trace.tie(compact, highest.expand(compact.shape))
    return True


def _along(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    axis, labels = _bound(function, args, kwargs).get("dim", -1), args[0].labels
    if varies(labels, axis):
        found = single_axis(labels)
        if function.overloadpacket.__name__ not in SOFTMAX or (found is None and not _tie_along(trace, labels, [axis])):
            return None
        if found is not None:
            trace.statistics.append(found[1])
    return [labels] * len(results)


def _per_map(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    """Operations on each map: pooling, resizing."""
    if args[0].ndim < 3 or any(result.shape[:2] != args[0].shape[:2] for result in results):
        return None
    along = meeting(trace, args[0].labels, 1)
    return [spread(along, 1, result.shape) for result in results]


def _statistics(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    """A norm of each channel without parameters."""
    if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(args[1:])):
        return None
    return [args[0].labels, *[None] * (len(results) - 1)] if profile(args[0].labels, 1) is not None else None


def _gate(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    axis = _bound(function, args, kwargs).get("dim", -1)
    halves = args[0].labels.chunk(2, axis)
    trace.splits.add(2)
    shape = results[0].shape
    return [combine(trace, [(half, shape) for half in halves], shape)]


def _patches(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    return [function(args[0].labels.double(), *args[1:], **kwargs).to(torch.int32)]


def _unpatched(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    """Patches that are added up, [N, C * kH * kW, L]: the places of a patch are tied to their channel."""
    kernel = _bound(function, args, kwargs)["kernel_size"]
    along_CK = meeting(trace, args[0].labels, -2).reshape(-1, math.prod(kernel))
    highest_C = along_CK.amax(1)
    trace.tie(along_CK, highest_C.unsqueeze(1).expand(along_CK.shape))
    return [spread(highest_C, -3, results[0].shape)]


def _spectrum(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    """Fourier transforms along other axes than those of the channels, and pairs of numbers as complex ones."""
    labels, kind = args[0].labels, function.overloadpacket.__name__
    if kind == "view_as_real":  # which adds an axis behind the others
        return [labels.unsqueeze(-1).expand(results[0].shape)]
    changed = {axis % labels.ndim for axis in args[1]} if len(args) > 1 else {labels.ndim - 1}
    if any(varies(labels, axis) for axis in changed):
        return None
    if kind == "view_as_complex":
        return [labels.select(-1, 0)]
    for axis in changed:
        labels = labels.amax(axis, keepdim=True)
    return [labels.expand(results[0].shape)]


def _pointwise(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    shape, tensors = results[0].shape, tensors_of((args, kwargs))
    if len(tensors) == len(results) == 1 and tensors[0].shape == shape:
        return [labels_of(tensors[0])]
    operands = [(labels_of(tensor), _reach(tensor)) for tensor in tensors]
    labels = combine(trace, operands, shape)
    return [labels if result.shape == shape else None for result in results]


def _reach(tensor: Tensor) -> list[int]:
    """Return the shape of a tensor, with 1 where its elements are alike: there it may be as long as what it meets.

    Tensors that the network holds are as long as they are.
    """
    if labels_of(tensor) is not None or isinstance(tensor, torch.nn.Parameter) or getattr(tensor, "own", None):
        return list(tensor.shape)
    return [1 if size > 1 and alike(tensor, axis) else size for axis, size in enumerate(tensor.shape)]


def _deformed(
    trace: Trace, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> list[Labels] | None:
    """Torchvision's deformable convolution: images, weight, offsets, mask; its outputs are no channels."""
    images, weight, *placed = args[:4]
    if weight.shape[1] != images.shape[1] or (labels_of(images) is not None and labels_of(weight) is None):
        return None
    for each in placed:
        trace.pin(labels_of(each), "it places the samples of a deformable convolution")
    return [None]


def _axes_of(given: Mapping[str, Any], count: int) -> list[int]:
    """Return the axes that a reduction goes over."""
    axes = given.get("dim")
    return [axes] if isinstance(axes, int) else list(axes or range(count))


def _bound(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip((argument.name for argument in function._schema.arguments), args, strict=False)) | dict(kwargs)
