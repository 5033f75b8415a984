"""Groups of channels that must be removed together, with the entries of all layers that depend on them."""

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.networks.layers import CONVOLUTIONS, TRANSPOSED

Weighted = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Linear
WEIGHTED = (*CONVOLUTIONS, nn.Linear)


@dataclasses.dataclass(frozen=True)
class OwnTensor:
    """An axis of a parameter or buffer that a module of the network holds itself, such as a layer scale.

    Attributes:
        owner: name of the module.
        key: name of the tensor in it.
        axis: the axis, [0, axes).
        length: of the axis.
    """

    owner: str
    key: str
    axis: int
    length: int

    @property
    def name(self) -> str:
        """Tensor and axis, such as ``blocks.0.gamma[0]``."""
        return f"{self.owner}.{self.key}[{self.axis}]".lstrip(".")


@dataclasses.dataclass(frozen=True)
class Member:
    """A side of a layer, or an axis of a tensor of the network's own, that shrinks with a group.

    Attributes:
        name: name of the module, or of tensor and axis.
        layer: the module, or the tensor's place.
        output: whether its outputs shrink, or its inputs; layers with one input per output count as outputs.
        entries: [channels, k], the outputs or inputs of the layer that belong to each channel of the group.
    """

    name: str
    layer: nn.Module | OwnTensor
    output: bool
    entries: Tensor


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels that can be removed, each with its entries in every member.

    Attributes:
        name: name of the layer that produces them; of the first one if a shortcut adds several.
        members: all sides of layers that shrink.
        blocks: number of blocks of equal length that must shrink alike, because of grouped convolutions.
        statistics: whether something is computed over the channels, such as the mean of a layer norm: what the network
            computes without some of them is what it computes from the statistics of the others.
        numbers: attributes of modules of the network's own that hold a number of channels, with the entries of it that
            a channel stands for: (module, attribute, entries).
        computing: the network's layers that compute with what they make of their weights (see ``computing``).
        joined: whether only a number of the network's holds channels of several kinds together (see ``joining``).
    """

    name: str
    members: tuple[Member, ...]
    blocks: int = 1
    statistics: bool = False
    numbers: tuple[tuple[str, str, int], ...] = ()
    computing: frozenset[str] = frozenset()
    joined: bool = False

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self.members[0].entries)

    @property
    def width(self) -> int:
        """The number of outputs and inputs of each layer that a channel stands for; many for a head."""
        return math.gcd(*(member.entries.shape[1] for member in self.members))

    def producers(self) -> set[str]:
        """Return the names of the convolutions, fully connected and recurrent layers whose outputs are the channels."""
        kinds = (*WEIGHTED, nn.RNNBase, nn.RNNCellBase)
        return {member.name for member in self.members if member.output and isinstance(member.layer, kinds)}

    def tied(self, parts: int) -> "ChannelGroup":
        """Return the group whose channels are those at the same place of each of ``parts`` parts of equal length."""
        members = tuple(
            dataclasses.replace(member, entries=member.entries.unflatten(0, (parts, -1)).transpose(0, 1).flatten(1))
            for member in self.members
        )
        return dataclasses.replace(self, members=members, blocks=1 if parts % self.blocks == 0 else self.blocks)

    def lowest(self, scores: Tensor, count: int) -> Tensor:
        """Return the channels to remove so that the ``count`` with the highest ``scores`` [channels] are left."""
        per_block = self.channels // self.blocks
        order = scores.reshape(self.blocks, per_block).argsort(dim=1, stable=True)
        removed = order[:, : per_block - count // self.blocks]
        return (removed + torch.arange(self.blocks).unsqueeze(1) * per_block).flatten().sort().values


def weighted(layer: object) -> Weighted:
    """Return ``layer``, which must be a convolution or fully connected."""
    assert isinstance(layer, WEIGHTED)
    return layer


def parts_of(layer: object) -> int:
    """Return the number of groups of a convolution, 1 for other layers."""
    return layer.groups if isinstance(layer, CONVOLUTIONS) else 1


def axis_of_channels(layer: nn.Module) -> int:
    """Return the axis of the channels in the inputs and outputs of a layer with weights."""
    return 1 if isinstance(layer, CONVOLUTIONS) else -1


def is_depthwise(layer: object) -> bool:
    """Return whether each input of a convolution has outputs of its own, one or several."""
    return isinstance(layer, CONVOLUTIONS) and layer.groups == layer.in_channels and layer.groups > 1


def input_slices(weight: Tensor, groups: int) -> Tensor:
    """Return a weight by input: [O, I / G, ...] -> [I, O / G, ...]."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def weight_from_inputs(slices: Tensor, groups: int) -> Tensor:
    """Return the weight with the given ``input_slices``: [I, O / G, ...] -> [O, I / G, ...]."""
    return slices.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def by_output(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return the weight of a layer, or a like tensor, by output: [O, I / G, ...]. Transposed ones hold it by input."""
    return weight_from_inputs(weight, parts_of(layer)) if isinstance(layer, TRANSPOSED) else weight


def by_input(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return the weight of a layer, or a like tensor, by input: [I, O / G, ...]."""
    return weight if isinstance(layer, TRANSPOSED) else input_slices(weight, parts_of(layer))


def from_inputs(layer: nn.Module, rows: Tensor) -> Tensor:
    """Return the tensor that ``by_input`` gives as ``rows``."""
    return rows if isinstance(layer, TRANSPOSED) else weight_from_inputs(rows, parts_of(layer))


def narrowed(groups: Mapping[str, ChannelGroup], removed: Mapping[str, Tensor]) -> dict[str, ChannelGroup]:
    """Return the groups of the network after ``surgery.remove(module, groups, removed)``.

    Args:
        groups: those before the removal.
        removed: the channels [n] that were removed from each group, by name.
    """
    lost: dict[tuple[str, bool], list[Tensor]] = {}
    for name, channels in removed.items():
        for member in groups[name].members if len(channels) else ():
            lost.setdefault((member.name, member.output), []).append(member.entries[channels].flatten())
    gone = {side: torch.cat(parts).sort().values for side, parts in lost.items()}
    result = {}
    for name, group in groups.items():
        kept = torch.ones(group.channels, dtype=torch.bool)
        kept[removed.get(name, torch.zeros(0, dtype=torch.long))] = False
        members = []
        for member in group.members:
            entries = member.entries[kept]
            before = gone.get((member.name, member.output))
            if before is not None:
                entries = entries - torch.searchsorted(before, entries)
            members.append(dataclasses.replace(member, entries=entries))
        result[name] = dataclasses.replace(group, members=tuple(members))
    return result
