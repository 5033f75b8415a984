"""Which channel every element of every activation belongs to, found by running the network once.

Each activation carries labels of its own shape: an element of output channel ``i`` of a layer has the label of that
channel, and 0 is an element of no channel. Operations that move elements move the labels by the same operation, so
that a reordering, a concatenation or a split needs no rule of its own. Operations that combine elements tie the
channels together that they combine; what is not known pins the channels, and they stay.

Labels that are equal along an axis have stride 0 there, so they take no memory and next to no time. Most depend on one
axis only: ``spread`` notes which, so that what is asked of them is answered from one vector.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kondense.channels.groups import WEIGHTED, OwnTensor

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
OVER_CHANNELS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)  # norms whose statistics are taken over channels
PER_CHANNEL = (*NORMS, *OVER_CHANNELS, nn.PReLU)  # their tensors hold one value of each channel
ATOMS = (int, float, bool, str, type(None), torch.dtype, torch.device)  # of arguments; they hold no tensor
Side = tuple[str, bool]  # name of a layer; whether its outputs, or its inputs


@dataclasses.dataclass
class Trace:
    """What a pass has shown so far.

    Attributes:
        layers: the convolutions, fully connected and recurrent layers, norms and PReLUs, by name, in the network's
            order.
        owners: names of the layers that hold a tensor, by its id; several if it is tied.
        sides: the labels [n] of every side that channels pass, in the order of the pass.
        ties: pairs of label tensors [n] whose entries are one channel.
        pins: label tensors [n] of channels that must stay, with the reason.
        splits: into how many parts an axis of channels was split.
        produced: the labels of the outputs of every layer that ran, [n].
        ran: layers that ran.
        labels: the number of labels given out.
        own: the axes of the tensors that are not of a layer, with their labels [n], by name (see ``own``).
        statistics: label tensors [n] of channels over which a statistic is taken.
        running: name of the layer that runs, where its tensors do not tell.
        lacking: in a pass without some channels: their entries in every side; statistics are taken over the others.
        gone: likewise, whether the channel of each label is one of them.
        misused: layers whose weights the network used otherwise than by calling the layer, with the reason.
        computing: layers that compute with what they make of their weights, such as standardised ones.
    """

    layers: dict[str, nn.Module]
    owners: dict[int, list[str]] = dataclasses.field(default_factory=dict)
    sides: dict[Side, Tensor] = dataclasses.field(default_factory=dict)
    ties: list[tuple[Tensor, Tensor]] = dataclasses.field(default_factory=list)
    pins: list[tuple[Tensor, str]] = dataclasses.field(default_factory=list)
    splits: set[int] = dataclasses.field(default_factory=set)
    produced: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    misused: dict[str, str] = dataclasses.field(default_factory=dict)
    own: dict[str, tuple[OwnTensor, Tensor]] = dataclasses.field(default_factory=dict)
    statistics: list[Tensor] = dataclasses.field(default_factory=list)
    computing: frozenset[str] = frozenset()
    running: str = ""
    lacking: Mapping[Side, Tensor] | None = None
    gone: set[int] = dataclasses.field(default_factory=set)
    ran: set[str] = dataclasses.field(default_factory=set)
    labels: int = 0

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """Return an empty trace of a network."""
        kinds: tuple[type[nn.Module], ...] = (*WEIGHTED, *PER_CHANNEL, nn.RNNBase, nn.RNNCellBase)
        trace = cls({name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)})
        for name, layer in trace.layers.items():
            for tensor in (*layer._parameters.values(), *layer._buffers.values()):
                if tensor is not None:
                    trace.owners.setdefault(id(tensor), []).append(name)
        return trace

    def new_labels(self, count: int) -> Tensor:
        """Return labels for ``count`` new channels, [count]."""
        self.labels += count
        return torch.arange(self.labels - count + 1, self.labels + 1, dtype=torch.int32)

    def pin(self, labels: Tensor | None, reason: str) -> None:
        """Record that the channels of these labels must stay."""
        if labels is not None:
            noted = axis_of(labels)
            compact = noted[1] if noted else collapse(labels).flatten()
            if bool(compact.any()):
                self.pins.append((compact, reason))

    def tie(self, first: Tensor, second: Tensor) -> None:
        """Record that two label tensors of one shape are the same channels; 0 is none."""
        both = (first != second) & (first != 0) & (second != 0)
        if bool(both.any()):
            self.ties.append((first[both], second[both]))

    def meet(self, name: str, *, output: bool, labels: Tensor) -> None:
        """Record the labels [n] that pass a side of a layer, which may be called several times."""
        earlier = self.sides.setdefault((name, output), labels)
        if self.lacking is not None and (name, output) in self.lacking:
            self.gone.update(labels[self.lacking[name, output]].tolist())
        if earlier is not labels:
            self.tie(earlier, labels)
            odd = (earlier == 0) != (labels == 0)
            if bool(odd.any()):
                self.pin(torch.maximum(earlier, labels)[odd], f"{name!r} is called with other inputs, too")

    def kept(self, labels_n: Tensor) -> Tensor | None:
        """Return the places of the labels whose channels are not lacking, or None if all are there."""
        if not self.gone:
            return None
        kept = [place for place, label in enumerate(labels_n.tolist()) if label == 0 or label not in self.gone]
        return torch.tensor(kept) if len(kept) < len(labels_n) else None

    def lost(self, labels_n: Tensor) -> Tensor | None:
        """Return the places of the labels whose channels are lacking, or None if all are there."""
        kept = self.kept(labels_n)
        if kept is None:
            return None
        return torch.ones(len(labels_n), dtype=torch.bool).index_fill(0, kept, value=False).nonzero().flatten()


class Labelled(Tensor):
    """A tensor with the labels of its elements; None: no element belongs to a channel.

    ``own`` holds the labels that the elements would have if an axis of a tensor of the network's own were one of
    channels, by the name of that axis.
    """

    value: Tensor
    labels: Tensor | None
    record: Trace
    own: Mapping[str, Tensor]

    @staticmethod
    def __new__(cls, value: Tensor, labels: Tensor | None, trace: Trace) -> "Labelled":
        """Wrap ``value``."""
        made: Labelled = Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            layout=value.layout,
            device=value.device,
            requires_grad=False,
        )
        made.value, made.labels, made.record, made.own = value, labels, trace, {}
        return made


def labels_of(tensor: Tensor) -> Tensor | None:
    """Return the labels of a tensor, None if it has none."""
    return tensor.labels if isinstance(tensor, Labelled) else None


def alike(tensor: Tensor, axis: int) -> bool:
    """Return whether the elements of a tensor along an axis are the same, as those of zeros are."""
    value = unwrapped(tensor)
    return value.stride(axis) == 0 or bool((value == value.narrow(axis, 0, 1)).all())


def unwrapped(arguments: Any) -> Any:
    """Return nested arguments with the values of labelled tensors."""
    if isinstance(arguments, Labelled):
        return arguments.value
    if type(arguments) in (tuple, list):
        return type(arguments)(unwrapped(argument) for argument in arguments)
    if type(arguments) is dict:
        return {key: unwrapped(argument) for key, argument in arguments.items()}
    if type(arguments) in ATOMS:
        return arguments
    return pytree.tree_map(lambda leaf: leaf.value if isinstance(leaf, Labelled) else leaf, arguments)


def tensors_of(arguments: Any) -> list[Tensor]:
    """Return all tensors of nested arguments."""
    if isinstance(arguments, Tensor):
        return [arguments]
    if type(arguments) in ATOMS:
        return []
    if type(arguments) in (tuple, list, dict):
        nested = arguments.values() if type(arguments) is dict else arguments
        return [tensor for argument in nested for tensor in tensors_of(argument)]
    return [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]


def axis_of(labels: Tensor) -> tuple[int, Tensor] | None:
    """Return the axis that labels depend on, and the labels along it [n], where that was noted (see ``spread``)."""
    return getattr(labels, "along", None)


def collapse(labels: Tensor, *, keep: int | None = None) -> Tensor:
    """Return labels with every axis of stride 0 narrowed to length 1, but for the axis ``keep``."""
    for axis, (stride, size) in enumerate(zip(labels.stride(), labels.shape, strict=True)):
        if stride == 0 and size > 1 and axis != keep:
            labels = labels.narrow(axis, 0, 1)
    return labels


def varies(labels: Tensor, axis: int) -> bool:
    """Return whether elements along an axis belong to different channels; those of no channel do not count."""
    if labels.shape[axis] <= 1 or labels.stride(axis) == 0:
        return False
    noted = axis_of(labels)
    if noted is None or noted[0] != axis % labels.ndim:
        return _varies(collapse(labels, keep=axis), axis)
    along = noted[1]
    known = getattr(along, "varied", None)  # one vector is that of many activations
    if known is None:
        known = along.varied = _varies(along, 0)  # type: ignore[attr-defined]
    return bool(known)


def _varies(labels: Tensor, axis: int) -> bool:
    return bool(((labels != labels.amax(axis, keepdim=True)) & (labels != 0)).any())


def single_axis(labels: Tensor) -> tuple[int, Tensor] | None:
    """Return the only axis that labels depend on, from the end, and the labels along it [n], or None."""
    noted = axis_of(labels)
    if noted is not None:
        return noted[0] - labels.ndim, noted[1]
    compact = collapse(labels)
    axes = [axis for axis in range(compact.ndim) if varies(compact, axis)]
    if len(axes) != 1:
        return None
    along = profile(labels, axes[0])
    return (axes[0] - labels.ndim, along) if along is not None else None


def profile(labels: Tensor, axis: int) -> Tensor | None:
    """Return the labels along an axis, [n], or None if they also depend on another axis."""
    noted, count = axis_of(labels), labels.shape[axis]
    if noted and noted[0] == axis % labels.ndim:
        return noted[1]
    flat = collapse(labels, keep=axis).movedim(axis, -1).reshape(-1, count)
    if len(flat) == 1:
        return flat[0]
    highest = flat.amax(0)
    return highest if bool(((flat == highest) | (flat == 0)).all()) else None


def meeting(trace: Trace, labels: Tensor, axis: int) -> Tensor:
    """Return the labels along an axis, [n]; channels that meet at one place of it are tied together."""
    along = profile(labels, axis)
    if along is not None:
        return along
    flat = collapse(labels, keep=axis).movedim(axis, -1).reshape(-1, labels.shape[axis])
    highest = flat.amax(0)
    pairs = (flat.long() * (trace.labels + 1) + highest).unique()
    trace.tie(pairs // (trace.labels + 1), pairs % (trace.labels + 1))
    return highest


def reshaped(labels: Tensor, shape: Sequence[int]) -> Tensor:
    """Return labels in another shape; where they are equal along an axis, they stay so without taking memory."""
    parts, narrow, noted = _blocks(labels.shape, shape), labels, axis_of(labels)
    if noted:
        of_noted = next(after for before, after in parts if noted[0] in before)
        longer = [axis for axis in of_noted if shape[axis] > 1]
        if len(longer) == 1 and shape[longer[0]] == len(noted[1]):
            return spread(noted[1], longer[0], shape)
    compact = list(shape)
    for before, after in parts:
        if all(labels.stride(axis) == 0 or labels.shape[axis] == 1 for axis in before):
            for axis in before:
                narrow = narrow.narrow(axis, 0, 1)
            for axis in after:
                compact[axis] = 1
    return narrow.reshape(compact).expand(list(shape))


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return which axes of a shape become which of another with as many elements: the smallest runs of both.

    >>> _blocks((2, 3, 4, 5), (6, 4, 5, 1))
    [([0, 1], [0]), ([2], [1]), ([3], [2]), ([], [3])]
    """
    if 0 in before:
        return [(list(range(len(before))), list(range(len(after))))]
    blocks: list[tuple[list[int], list[int]]] = []
    first = second = 0
    while first < len(before) and second < len(after):
        block = ([first], [second])
        one, other = before[first], after[second]
        while one != other:
            if one < other:
                first += 1
                block[0].append(first)
                one *= before[first]
            else:
                second += 1
                block[1].append(second)
                other *= after[second]
        blocks.append(block)
        first, second = first + 1, second + 1
    rest = list(range(first, len(before))), list(range(second, len(after)))
    return [*blocks, rest] if any(rest) else blocks


def spread(labels_n: Tensor, axis: int, shape: Sequence[int]) -> Tensor:
    """Return labels of ``shape`` that depend on one axis only, as ``labels_n`` say."""
    axis %= len(shape)
    view = [1] * len(shape)
    view[axis] = len(labels_n)
    wide = labels_n.reshape(view).expand(shape)
    wide.along = (axis, labels_n)  # type: ignore[attr-defined]
    return wide
