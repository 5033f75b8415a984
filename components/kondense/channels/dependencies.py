"""Dependency groups: channels that must be removed together, and the entries of all layers that depend on them.

torch-pruning traces how channels pass from layer to layer; this module walks its graph once and stores each group as
plain index tables, so that scores, costs and surgery need no graph.
"""

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_pruning.dependency import Dependency, DependencyGraph

from kondense.artifacts.structure import ATTRIBUTES
from kondense.errors import InputError
from kondense.networks.layers import TYPES

# Rounding of sums in another order is below this, relative to the largest logit; a different function is far above:
SUSPICIOUS = 1e-4  # in float32
TOLERANCE = 1e-9  # in float64


class Entry(NamedTuple):
    """An index of a layer's side and the channel of the group that it belongs to; names as in torch-pruning."""

    idx: int
    root_idx: int


@dataclasses.dataclass(frozen=True)
class Member:
    """A side of a layer that shrinks with a group.

    Attributes:
        name: name of the module.
        layer: the module.
        output: whether its outputs shrink, or its inputs; layers with one input per output count as outputs.
        entries: [channels, k], the outputs or inputs of the layer that belong to each channel of the group.
    """

    name: str
    layer: nn.Module
    output: bool
    entries: Tensor


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels that can be removed, each with its entries in every member.

    Attributes:
        name: name of the layer that produces them; of the first one if a shortcut adds several.
        members: all sides of layers that shrink.
        blocks: number of blocks of equal length that must shrink alike, because of grouped convolutions.
    """

    name: str
    members: tuple[Member, ...]
    blocks: int = 1

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self.members[0].entries)

    def producers(self) -> set[str]:
        """Return the names of the convolutions and fully connected layers whose outputs are the channels."""
        return {member.name for member in self.members if member.output and isinstance(member.layer, WEIGHTED)}

    def lowest(self, scores: Tensor, count: int) -> Tensor:
        """Return the channels to remove so that the ``count`` with the highest ``scores`` [channels] are left."""
        per_block = self.channels // self.blocks
        order = scores.reshape(self.blocks, per_block).argsort(dim=1, stable=True)
        removed = order[:, : per_block - count // self.blocks]
        return (removed + torch.arange(self.blocks).unsqueeze(1) * per_block).flatten().sort().values


WEIGHTED = tuple(TYPES.values())


def weighted(layer: nn.Module) -> nn.Conv2d | nn.Linear:
    """Return ``layer``, which must be a convolution or fully connected."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return layer


def find_groups(
    module: nn.Module, image_shape: tuple[int, int, int], excluded: Iterable[str] = ()
) -> dict[str, ChannelGroup]:
    """Return the groups whose channels can be removed, by name; the network ends in evaluation mode.

    Skipped: the network's outputs, groups that an excluded layer produces, channels that a layer uses in a way that
    cannot shrink, and channels that pass a module whose shape the Model artifact cannot describe.

    Args:
        module: the network.
        image_shape: shape of one image, (C, H, W).
        excluded: layers not to prune.

    Raises:
        InputError: the network cannot be traced; the text says where.

    Source: Fang et al. 2023 (DepGraph), section 3.
    """
    graph = _trace(module, image_shape)
    groups: dict[str, ChannelGroup] = {}
    produced: set[str] = set()
    for layer, node in list(graph.module2node.items()):
        if isinstance(layer, WEIGHTED) and node._name not in produced:
            entries = _walk(graph, layer)
            produced |= {dependency.target._name for dependency in entries if _is_output(dependency)}
            group = _describe(node._name, weighted(layer), entries)
            if group is not None and not group.producers() & set(excluded):
                groups[group.name] = group
    _check(module, groups, image_shape)
    return groups


def _trace(module: nn.Module, image_shape: tuple[int, int, int]) -> DependencyGraph:
    ran: list[str] = []
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, layer in module.named_modules()
        if isinstance(layer, WEIGHTED)
    ]
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    for parameter in frozen:  # the trace follows gradients
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            graph = DependencyGraph().build_dependency(module, (torch.zeros(1, *image_shape),), verbose=False)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        last = f"the last layer that ran was {ran[-1]!r}" if ran else "no layer ran"
        raise InputError(f"torch-pruning must be able to trace the network, but {last}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in frozen:
            parameter.requires_grad_(False)
    traced = {node._name for node in graph.module2node.values()}
    for name in ran:
        if name not in traced:
            raise InputError(
                f"the network must be differentiable from its logits back to every layer, but the path to {name!r}"
                " is cut (no_grad, detach or an operation without a gradient), so its channels cannot be traced."
            )
    return graph


def _walk(graph: DependencyGraph, root: nn.Module) -> dict[Dependency, list[Entry]]:
    """Return all sides of layers that shrink with the outputs of ``root``, with their entries.

    The same walk as ``DependencyGraph.get_pruning_group``, which recomputes all index mappings of the network for each
    layer: 4.6 of the 5 s that finding the groups of DenseNet-121 takes.
    """
    pruner = graph.get_pruner_of_module(root)
    node = graph.module2node[root]
    entries = [Entry(index, index) for index in range(pruner.get_out_channels(root))]
    start = Dependency(pruner.prune_out_channels, pruner.prune_out_channels, source=node, target=node)
    merged = {(node, start.handler): (start, dict.fromkeys(entries))}
    seen = {(node, start.handler, tuple(entries))}
    stack = [(start, entries)]
    while stack:
        dependency, entries = stack.pop()
        for following in dependency.target.dependencies:
            if not following.is_triggered_by(dependency.handler):
                continue
            mapped = entries
            for mapping in following.index_mapping:
                mapped = mapping(mapped) if mapping is not None else mapped
            key = (following.target, following.handler)
            if mapped and (*key, tuple(mapped)) not in seen:
                seen.add((*key, tuple(mapped)))
                merged.setdefault(key, (following, {}))[1].update(dict.fromkeys(mapped))
                stack.append((following, mapped))
    return {dependency: list(indices) for dependency, indices in merged.values()}


def _describe(name: str, root: nn.Conv2d | nn.Linear, sides: Mapping[Dependency, list[Entry]]) -> ChannelGroup | None:
    """Return the group, or None if its channels cannot be removed."""
    channels = root.weight.shape[0]
    members = []
    for dependency, entries in sides.items():
        layer = dependency.target.module
        if _is_output(dependency) and not dependency.target.outputs:
            return None  # the network's outputs
        if isinstance(layer, nn.Parameter) or (not isinstance(layer, tuple(ATTRIBUTES)) and list(layer.parameters())):
            return None  # a shape that the artifact cannot describe
        table = _table(entries, channels)
        if table is None:
            return None
        if isinstance(layer, nn.Module) and isinstance(layer, tuple(ATTRIBUTES)):
            members.append(Member(dependency.target._name, layer, _is_output(dependency), table))
    blocks = _blocks(members)
    return ChannelGroup(name, tuple(members), blocks) if blocks else None


def _table(entries: Sequence[Entry], channels: int) -> Tensor | None:
    """Return the entries by channel, [channels, k], or None unless all channels have equally many distinct ones."""
    pairs = sorted((entry.root_idx, entry.idx) for entry in entries)
    if len(pairs) % channels or len({index for _, index in pairs}) < len(pairs):
        return None
    per_channel = len(pairs) // channels
    owners = torch.tensor([owner for owner, _ in pairs]).reshape(channels, per_channel)
    if not torch.equal(owners, torch.arange(channels).unsqueeze(1).expand_as(owners)):
        return None
    return torch.tensor([index for _, index in pairs]).reshape(channels, per_channel)


def _blocks(members: Iterable[Member]) -> int:
    """Return the number of blocks that all grouped convolutions agree on, 0 if they do not."""
    blocks = 1
    for member in members:
        layer = member.layer
        if not isinstance(layer, nn.Conv2d) or layer.groups == 1 or is_depthwise(layer):
            continue
        side = layer.out_channels if member.output else layer.in_channels
        identical = torch.equal(member.entries, torch.arange(side).unsqueeze(1))
        fewer, more = sorted((blocks, layer.groups))
        if not identical or more % fewer or layer.in_channels == layer.groups:
            return 0
        blocks = more
    return blocks


def is_depthwise(layer: nn.Conv2d) -> bool:
    """Return whether each output of a convolution has exactly one input, of its own."""
    return layer.groups == layer.in_channels == layer.out_channels and layer.groups > 1


def _is_output(dependency: Dependency) -> bool:
    return dependency.handler.__name__ == "prune_out_channels"


def _check(module: nn.Module, groups: Mapping[str, ChannelGroup], image_shape: tuple[int, int, int]) -> None:
    """Raise InputError unless permuting the channels of each group preserves the network's function.

    It does if and only if the tables are right for every channel; torch-pruning treats unknown operations, such as a
    transposition between two reshapes, as elementwise. Permutations are exact, so the network itself is permuted and
    restored; only suspicious cases are checked on a copy in float64.
    """
    image_1CHW = torch.randn(1, *image_shape, generator=torch.Generator().manual_seed(0))
    if _difference(module, groups, groups, image_1CHW) <= SUSPICIOUS:
        return
    exact = copy.deepcopy(module).double()
    wrong = [name for name in groups if _difference(exact, groups, [name], image_1CHW.double()) > TOLERANCE]
    if wrong:
        raise InputError(
            f"torch-pruning must be able to trace all channels, but not those of {', '.join(wrong)} (a reordering?);"
            " name these layers in exclude."
        )


@torch.no_grad()
def _difference(
    module: nn.Module, groups: Mapping[str, ChannelGroup], names: Iterable[str], image_1CHW: Tensor
) -> float:
    """Return the change of the logits, relative to the largest, after permuting channels of the named groups."""
    generator = torch.Generator().manual_seed(0)
    expected = module(image_1CHW)
    orders = {name: _shuffled(groups[name], generator) for name in names}
    try:
        for name, order in orders.items():
            _reorder(module, groups[name], order)
        moved = (module(image_1CHW) - expected).abs().max()
    finally:
        for name, order in orders.items():
            _reorder(module, groups[name], order.argsort())
    return float(moved / expected.abs().max().clamp_min(1e-30))


def _shuffled(group: ChannelGroup, generator: torch.Generator) -> Tensor:
    per_block = group.channels // group.blocks
    return torch.cat(
        [torch.randperm(per_block, generator=generator) + block * per_block for block in range(group.blocks)]
    )


def _reorder(module: nn.Module, group: ChannelGroup, order: Tensor) -> None:
    for member in group.members:
        layer = module.get_submodule(member.name)
        here, there = member.entries.flatten(), member.entries[order].flatten()
        if member.output:
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                if tensor.ndim:
                    tensor[here] = tensor[there].clone()
        else:
            weight, groups = weighted(layer).weight, layer.groups if isinstance(layer, nn.Conv2d) else 1
            slices = input_slices(weight, groups).clone()
            slices[here] = slices[there].clone()
            weight.copy_(weight_from_inputs(slices, groups))


def input_slices(weight: Tensor, groups: int) -> Tensor:
    """Return a weight by input: [O, I / G, ...] -> [I, O / G, ...]."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def weight_from_inputs(slices: Tensor, groups: int) -> Tensor:
    """Return the weight with the given ``input_slices``: [I, O / G, ...] -> [O, I / G, ...]."""
    return slices.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
