"""Proof that groups are right: without some channels, a network computes what it does when nothing reads them.

The outputs of every convolution and fully connected layer are compared, not only those of the network: what goes wrong
in one layer may be hardly seen at the end.
"""

import contextlib
import copy
import dataclasses
import time
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kondense.artifacts.equivalence import COARSE, SUSPICIOUS, TOLERANCE, WITHOUT_VALUE, relative_change
from kondense.channels.groups import WEIGHTED, ChannelGroup, input_slices, weight_from_inputs, weighted
from kondense.channels.surgery import remove, restored
from kondense.export.trace import layer_by_layer

SECONDS = 60.0  # of processor time; groups that are not proved by then stay whole
SHARES = (0.3, 0.5)  # of the channels of a group that a proof removes, another of each group
TINY = 1e-3  # weights that are all below it hide what lies behind them, such as a new network's last scale
IMAGES = 2
PLACES = 8  # of each axis of a layer's outputs that are compared; a wrong channel shows in all of them

Outcome = ChannelGroup | str
Removed = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Change:
    """Where the network without channels computes something else.

    Attributes:
        layer: the first whose outputs differ, empty for those of the network.
        amount: relative to its largest output; infinite if the network does not run.
    """

    layer: str
    amount: float

    def __str__(self) -> str:
        if self.amount == WITHOUT_VALUE:
            return "the network no longer runs (is a number of channels written in its code?)"
        place = f", first those of {self.layer!r}" if self.layer else ""
        return f"the outputs change by {self.amount:.2g} of the largest{place}"


def unproved(
    module: nn.Module,
    groups: Mapping[str, ChannelGroup],
    image_shape: tuple[int, int, int],
    *,
    splits: Collection[int] = (),
    seconds: float = SECONDS,
) -> dict[str, Outcome]:
    """Return the groups that are wrong as they are, by name: each as it is right, or the reason why it must stay.

    Args:
        module: the network, in evaluation mode; its layers are changed and put back.
        groups: its groups.
        image_shape: shape of one image, (C, H, W).
        splits: into how many parts the network splits its channels; a group may need to lose the same of each.
        seconds: processor time after which groups stay whole.
    """
    images_NCHW = torch.randn(IMAGES, *image_shape, generator=torch.Generator().manual_seed(1))
    changes: dict[str, Outcome] = {}
    left = dict(groups)
    with torch.no_grad(), restored(module):
        _make_loud(module)
        proof = _Proof(module, images_NCHW, time.process_time() + seconds)
        while left and (change := proof.change(left, left)) is not None:
            wrong = proof.wrong(left, change)
            for name in wrong:
                changes[name] = "there was no time to prove it" if proof.late else proof.mended(left, name, splits)
                if isinstance(outcome := changes[name], ChannelGroup):
                    left[name] = outcome
                else:
                    del left[name]
            if not wrong:
                changes |= dict.fromkeys(left, "its channels cannot be removed together with those of other layers")
                break
    return changes


class _Proof:
    """Removes channels of a network, compares, and puts them back."""

    def __init__(self, module: nn.Module, images_NCHW: Tensor, deadline: float) -> None:
        self.module, self.images_NCHW, self.deadline = module, images_NCHW, deadline
        self.double: nn.Module | None = None
        self.mended_names: set[str] = set()

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.process_time() > self.deadline

    def change(self, groups: Mapping[str, ChannelGroup], names: Iterable[str]) -> Change | None:
        """Return where the network without some channels of the named groups differs first, if anywhere."""
        removed = {name: _some(groups[name]) for name in names}
        change = _change(self.module, groups, removed, self.images_NCHW, SUSPICIOUS)
        if change is None or change.amount == WITHOUT_VALUE:
            return change
        self.double = self.double or copy.deepcopy(self.module).double()  # rounding of float32 may explain it
        try:
            return _change(self.double, groups, removed, self.images_NCHW.double(), TOLERANCE)
        except Exception:  # a network with a data type of its own
            return change if change.amount > COARSE else None

    def wrong(self, groups: Mapping[str, ChannelGroup], change: Change) -> list[str]:
        """Return the names of the groups that are wrong on their own, of those that a change may come from."""
        near = [name for name, group in groups.items() if change.layer in {member.name for member in group.members}]
        return [name for name in near if self.late or self.change(groups, [name])] or self.halved(groups, list(groups))

    def halved(self, groups: Mapping[str, ChannelGroup], names: list[str]) -> list[str]:
        """Return the names of the groups that are wrong, found by halving."""
        if not names or not (self.late or self.change(groups, names)):
            return []
        if len(names) == 1 or self.late:
            return names
        middle = len(names) // 2
        return [*self.halved(groups, names[:middle]), *self.halved(groups, names[middle:])]

    def mended(self, groups: Mapping[str, ChannelGroup], name: str, splits: Collection[int]) -> Outcome:
        """Return a wrong group as it is right, which loses the same of each part, or the reason why it must stay."""
        group = groups[name]
        change = self.change(groups, [name])
        if change is None or name in self.mended_names:
            return "its channels cannot be removed together with those of other layers"
        self.mended_names.add(name)
        for parts in sorted(part for part in splits if 1 < part < group.channels and group.channels % part == 0):
            attempt = dict(groups) | {name: group.tied(parts)}
            if not self.late and self.change(attempt, [name]) is None:
                return attempt[name]
        return f"without some of its channels {change}"


def _change(
    module: nn.Module, groups: Mapping[str, ChannelGroup], removed: Removed, images_NCHW: Tensor, limit: float
) -> Change | None:
    """Return where ``module`` without channels first differs by more than ``limit`` from what reads none of them."""
    with restored(module):
        kept = remove(module, groups, removed)
        actual = _recorded(module, images_NCHW, {}, failing=True)
    with restored(module):
        silence(module, groups, removed)
        expected = _recorded(module, images_NCHW, kept)
    for place, (layer, wanted) in enumerate(expected):
        if place == len(actual):
            return Change(layer, WITHOUT_VALUE)
        got = actual[place][1]
        if [each.shape for each in got] == [each.shape for each in wanted]:
            amount = max((relative_change(one, other) for one, other in zip(wanted, got, strict=True)), default=0.0)
            if amount > limit:
                return Change(layer, amount)
        elif not layer:  # the channels of a layer along another axis may be fewer; the network's outputs are the same
            return Change(layer, WITHOUT_VALUE)
    return None


Record = list[tuple[str, list[Tensor]]]


def _recorded(module: nn.Module, images_NCHW: Tensor, kept: Mapping[str, Tensor], *, failing: bool = False) -> Record:
    """Return samples of the outputs of every layer with weights, in the order of the pass, and the network's last.

    Args:
        module: the network, in evaluation mode.
        images_NCHW: the images.
        kept: indices of the outputs to return, by layer; all of the others.
        failing: end the record where the network fails.
    """
    record: Record = []

    def note(layer: nn.Module, name: str, output: object) -> None:
        axis = 1 if isinstance(layer, nn.Conv2d) else -1
        record.append((name, [_sample(output, axis, kept.get(name))] if isinstance(output, Tensor) else []))

    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: note(layer, name, output))
        for name, layer in module.named_modules()
        if isinstance(layer, WEIGHTED)
    ]
    try:
        failures = (Exception,) if failing else ()
        with torch.random.fork_rng(devices=[]), layer_by_layer(), contextlib.suppress(*failures):
            torch.manual_seed(0)
            leaves = pytree.tree_leaves(module(images_NCHW))
            record.append(("", [leaf for leaf in leaves if isinstance(leaf, Tensor)]))
    finally:
        for hook in hooks:
            hook.remove()
    return record


def _sample(output: Tensor, axis: int, kept: Tensor | None) -> Tensor:
    """Return a layer's outputs at some places, all channels of them."""
    axis %= output.ndim
    for other, size in enumerate(output.shape):
        if other != axis and size > PLACES:
            index = torch.arange(PLACES) * (size - 1) // (PLACES - 1)
            output = output.index_select(other, index)
    return output.index_select(axis, kept) if kept is not None else output.clone()


@torch.no_grad()
def unread(module: nn.Module, groups: Mapping[str, ChannelGroup], removed: Removed) -> nn.Module:
    """Return a copy in which no layer reads the ``removed`` channels of ``groups``; it shares other tensors."""
    tensors: Sequence[Tensor] = [*module.parameters(), *module.buffers()]
    silent = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    silence(silent, groups, removed)
    return silent


@torch.no_grad()
def silence(module: nn.Module, groups: Mapping[str, ChannelGroup], removed: Removed) -> None:
    """Give every layer that reads ``removed`` channels of ``groups`` a new weight, in which theirs are zero."""
    read = defaultdict(list)
    for name, channels in removed.items():
        for member in groups[name].members if len(channels) else ():
            if not member.output:
                read[member.name].append(member.entries[channels].flatten())
    for name, entries in read.items():
        layer, gone = weighted(module.get_submodule(name)), torch.cat(entries)
        parts = layer.groups if isinstance(layer, nn.Conv2d) else 1
        weight = layer.weight.detach()
        if parts == 1:
            weight = weight.index_fill(1, gone, 0.0)
        else:
            weight = weight_from_inputs(input_slices(weight, parts).index_fill(0, gone, 0.0), parts)
        layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)


def _some(group: ChannelGroup) -> Tensor:
    """Return channels of a group, as many of each block, but not all.

    The first ones are among them, so that parts of equal length do not lose the same; nor do blocks, nor groups.
    """
    per_block, number = group.channels // group.blocks, zlib.crc32(group.name.encode())
    share = SHARES[0] + (SHARES[1] - SHARES[0]) * (number % 64) / 63
    count = min(max(1, round(share * per_block)), per_block - 1)
    first = torch.arange((count + 1) // 2)
    rest = torch.randperm(per_block - len(first), generator=torch.Generator().manual_seed(number)) + len(first)
    some = torch.cat([first, rest])[:count]
    parts = [(per_block - 1 - some if block % 2 else some) + block * per_block for block in range(group.blocks)]
    return torch.cat(parts).sort().values


def _make_loud(module: nn.Module) -> None:
    """Replace weights near zero by random ones, so that nothing is hidden behind them."""
    generator = torch.Generator().manual_seed(2)
    places = [
        (layer, key, weight)
        for layer in module.modules()
        for key, weight in layer._parameters.items()
        if weight is not None and weight.is_floating_point() and weight.numel()
    ]
    quiet: dict[int, nn.Parameter] = {}
    for layer, key, weight in places:
        first = weight[:1] if weight.ndim else weight  # one row of a large weight tells as a rule
        if float(first.abs().max()) < TINY and float(weight.abs().max()) < TINY:
            spread = (len(weight) / weight.numel()) ** 0.5 if weight.ndim else 1.0
            noise = spread * torch.randn(weight.shape, generator=generator).to(weight)
            quiet.setdefault(id(weight), nn.Parameter(noise, requires_grad=False))
            layer._parameters[key] = quiet[id(weight)]
