"""Proof that groups are right: without some channels, a network computes what it does when nothing reads them."""

import copy
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from kondense.artifacts.equivalence import WITHOUT_VALUE, difference
from kondense.channels.groups import ChannelGroup, input_slices, weight_from_inputs, weighted
from kondense.channels.surgery import remove

SECONDS = 60.0  # of processor time; groups that are not proved by then stay whole
SHARE = 0.4  # of the channels of a group that a proof removes
TINY = 1e-3  # weights that are all below it hide what lies behind them, such as a new network's last scale
IMAGES = 2

Outcome = ChannelGroup | str


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
        module: the network; not changed.
        groups: its groups.
        image_shape: shape of one image, (C, H, W).
        splits: into how many parts the network splits its channels; a group may need to lose the same of each.
        seconds: processor time after which groups stay whole.
    """
    images_NCHW = torch.randn(IMAGES, *image_shape, generator=torch.Generator().manual_seed(1))
    proof = _Proof(_loud(module), images_NCHW, time.process_time() + seconds)
    changes: dict[str, Outcome] = {}
    suspects = proof.wrong(groups, list(groups))
    for name in suspects:
        group = groups[name]
        changes[name] = f"without some of its channels {proof.words(proof.change(groups, [name]))}"
        for parts in sorted(part for part in splits if 1 < part < group.channels and group.channels % part == 0):
            attempt = dict(groups) | {name: group.tied(parts)}
            if not proof.late and proof.change(attempt, [name]) == 0.0:
                changes[name] = attempt[name]
                break
    if suspects:
        rest = {name: changes.get(name, group) for name, group in groups.items()}
        left = {name: group for name, group in rest.items() if isinstance(group, ChannelGroup)}
        if proof.change(left, list(left)):
            changes |= dict.fromkeys(left, "its channels cannot be removed together with those of other layers")
    return changes


class _Proof:
    """Removes channels of a copy of a network and compares."""

    def __init__(self, module: nn.Module, images_NCHW: Tensor, deadline: float) -> None:
        self.module, self.images_NCHW, self.deadline = module, images_NCHW, deadline

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.process_time() > self.deadline

    def wrong(self, groups: Mapping[str, ChannelGroup], names: list[str]) -> list[str]:
        """Return the names of the groups that are wrong, found by halving."""
        if not names or not (self.late or self.change(groups, names)):
            return []
        if len(names) == 1 or self.late:
            return names
        middle = len(names) // 2
        return [*self.wrong(groups, names[:middle]), *self.wrong(groups, names[middle:])]

    def change(self, groups: Mapping[str, ChannelGroup], names: Iterable[str]) -> float:
        """Return how removing some channels of the named groups changes the outputs, 0.0 for not at all."""
        removed = {name: _some(groups[name]) for name in names}
        small = sharing(self.module)
        remove(small, groups, removed)
        return difference(unread(self.module, groups, removed), small, [self.images_NCHW])

    @staticmethod
    def words(change: float) -> str:
        """Return a change in words."""
        if change == WITHOUT_VALUE:
            return "the network no longer runs (is a number of channels written in its code?)"
        return f"the outputs change by {change:.2g} of the largest" if change else "there was no time to prove it"


@torch.no_grad()
def unread(module: nn.Module, groups: Mapping[str, ChannelGroup], removed: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy in which no layer reads the ``removed`` channels of ``groups``: their weights are zero."""
    silent, read = sharing(module), defaultdict(list)
    for name, channels in removed.items():
        for member in groups[name].members if len(channels) else ():
            if not member.output:
                read[member.name].append(member.entries[channels].flatten())
    for name, entries in read.items():
        layer = weighted(silent.get_submodule(name))
        parts = layer.groups if isinstance(layer, nn.Conv2d) else 1
        slices = input_slices(layer.weight, parts).clone()
        slices[torch.cat(entries)] = 0.0
        layer.weight = nn.Parameter(weight_from_inputs(slices, parts))
    return silent


def sharing(module: nn.Module) -> nn.Module:
    """Return a copy of a network that shares its tensors: a copied layer may get others, not change these."""
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def _some(group: ChannelGroup) -> Tensor:
    """Return channels of a group, as many of each block, but not all.

    The first ones are among them, so that parts of equal length do not lose the same; and blocks do not, either.
    """
    per_block = group.channels // group.blocks
    count = min(max(1, round(SHARE * per_block)), per_block - 1)
    first = torch.arange((count + 1) // 2)
    rest = torch.randperm(per_block - len(first), generator=torch.Generator().manual_seed(group.channels)) + len(first)
    some = torch.cat([first, rest])[:count]
    parts = [(per_block - 1 - some if block % 2 else some) + block * per_block for block in range(group.blocks)]
    return torch.cat(parts).sort().values


@torch.no_grad()
def _loud(module: nn.Module) -> nn.Module:
    """Return a copy whose weights near zero are replaced by random ones, so that nothing is hidden behind them."""
    generator = torch.Generator().manual_seed(2)
    tensors: dict[int, Tensor] = {id(buffer): buffer for buffer in module.buffers()}
    for parameter in module.parameters():
        tensors[id(parameter)] = parameter
        if parameter.is_floating_point() and parameter.numel() and float(parameter.abs().max()) < TINY:
            spread = (len(parameter) / parameter.numel()) ** 0.5 if parameter.ndim else 1.0
            noise = spread * torch.randn(parameter.shape, generator=generator).to(parameter)
            tensors[id(parameter)] = nn.Parameter(noise, requires_grad=False)
    return copy.deepcopy(module, tensors).eval()
