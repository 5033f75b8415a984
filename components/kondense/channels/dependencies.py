"""Dependency groups: channels that must be removed together, and the entries of all layers that depend on them.

One pass under labels (see ``labels``) shows how channels go from layer to layer. Every group is then proved: a copy of
the network without some of its channels must run and compute what the network computes without them. Groups that are
not proved stay whole, with the reason.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from kondense.artifacts.structure import kind_of
from kondense.channels.groups import (
    WEIGHTED,
    ChannelGroup,
    Member,
    input_slices,
    is_depthwise,
    narrowed,
    weight_from_inputs,
    weighted,
)
from kondense.channels.labels import Side, Trace
from kondense.channels.proof import unproved
from kondense.channels.tracing import trace_channels

__all__ = [
    "WEIGHTED",
    "ChannelGroup",
    "Dependencies",
    "Member",
    "find_dependencies",
    "find_groups",
    "input_slices",
    "is_depthwise",
    "narrowed",
    "weight_from_inputs",
    "weighted",
]


@dataclasses.dataclass(frozen=True)
class Dependencies:
    """What can be removed from a network, and what cannot.

    Attributes:
        groups: the groups whose channels can be removed, by name.
        whole: why the outputs of a layer must stay, by its name; excluded layers are not listed.
    """

    groups: dict[str, ChannelGroup]
    whole: dict[str, str]


def find_groups(
    module: nn.Module, image_shape: tuple[int, int, int], excluded: Iterable[str] = ()
) -> dict[str, ChannelGroup]:
    """Return the groups whose channels can be removed, by name (see ``find_dependencies``)."""
    return find_dependencies(module, image_shape, excluded).groups


def find_dependencies(
    module: nn.Module, image_shape: tuple[int, int, int], excluded: Iterable[str] = (), *, proved: bool = True
) -> Dependencies:
    """Return the groups whose channels can be removed, and what stays whole; the network ends in evaluation mode.

    Args:
        module: the network.
        image_shape: shape of one image, (C, H, W).
        excluded: layers not to prune: groups that one of them produces are skipped.
        proved: leave out the groups whose proof fails.

    Raises:
        InputError: the network does not run on such images; the text says where.

    Source: Fang et al. 2023 (DepGraph), section 3, for the groups. Deviation: they are found by following elements
    instead of layers, so that every movement of channels is seen.
    """
    trace = trace_channels(module, image_shape)
    found, whole = _assemble(trace)
    excluded = set(excluded)
    found = {name: group for name, group in found.items() if not group.producers() & excluded}
    refuted = unproved(module, found, image_shape, splits=trace.splits) if proved else {}
    groups = {}
    for name, group in found.items():
        outcome = refuted.get(name, group)
        if isinstance(outcome, ChannelGroup):
            groups[name] = outcome
        else:
            whole |= dict.fromkeys(group.producers(), outcome)
    return Dependencies(groups, {name: reason for name, reason in whole.items() if name not in excluded})


def _assemble(trace: Trace) -> tuple[dict[str, ChannelGroup], dict[str, str]]:
    """Return the groups that the trace shows, and the reasons of the layers whose outputs must stay."""
    atoms = _components(trace)
    pinned = _reasons(trace, atoms)
    sides = {side: atoms[labels.long()] for side, labels in trace.sides.items()}
    sides = {side: ids for side, ids in sides.items() if bool(ids.any())}
    touching = _Touching(sides, len(atoms))
    taken = torch.zeros(len(atoms), dtype=torch.bool)
    stays = torch.zeros(len(atoms), dtype=torch.bool)
    stays[list(pinned)] = True
    whole: dict[str, str] = {}
    groups: dict[str, ChannelGroup] = {}
    for name in (name for name, layer in trace.layers.items() if isinstance(layer, WEIGHTED)):
        ids = sides.get((name, True), torch.zeros(0, dtype=torch.long))
        ids = ids[ids != 0]
        held = ids[stays[ids]]
        if len(held) or not len(ids):
            whole[name] = pinned[int(held.min())] if len(held) else _why_no_outputs(trace, name)
        elif not bool(taken[ids].all()):
            order = _distinct(ids[~taken[ids]])
            made = _describe(name, trace, touching.of(order), order)
            taken[ids] = True
            groups |= {key: group for key, group in made.items() if isinstance(group, ChannelGroup)}
            whole |= {key: reason for key, reason in made.items() if isinstance(reason, str)}
    return groups, whole


class _Touching:
    """Which sides of layers each atom passes: the places of every atom in one list, one atom after the other."""

    def __init__(self, sides: Mapping[Side, Tensor], atoms: int) -> None:
        self.sides = list(sides.items())
        places = [(ids.unique(), number) for number, (_, ids) in enumerate(self.sides)]
        nothing = [torch.zeros(0, dtype=torch.long)]
        atom_of = torch.cat([ids for ids, _ in places] + nothing)
        side_of = torch.cat([torch.full_like(ids, number) for ids, number in places] + nothing)
        self.side_of = side_of[atom_of.argsort(stable=True)]
        self.counts = torch.bincount(atom_of, minlength=atoms)
        self.starts = self.counts.cumsum(0) - self.counts

    def of(self, atoms: Tensor) -> dict[Side, Tensor]:
        """Return the sides that some atoms pass, with the atoms of each."""
        counts = self.counts[atoms]
        firsts = (self.starts[atoms] - (counts.cumsum(0) - counts)).repeat_interleave(counts)
        touched = self.side_of[firsts + torch.arange(len(firsts))].unique()
        return dict(self.sides[number] for number in touched.tolist())


def _why_no_outputs(trace: Trace, name: str) -> str:
    if name in trace.misused:
        return trace.misused[name]
    if name not in trace.ran:
        return "the network does not run it"
    return "it has one output" if len(weighted(trace.layers[name]).weight) == 1 else "its inputs stay"


def _components(trace: Trace) -> Tensor:
    """Return the smallest label of the channels that are tied to each label, [labels + 1]."""
    roots = torch.arange(trace.labels + 1)
    if not trace.ties:
        return roots
    first, second = (torch.cat(parts).long() for parts in zip(*trace.ties, strict=True))
    while True:
        one, other = roots[first], roots[second]
        if torch.equal(one, other):
            return roots
        roots.scatter_reduce_(0, torch.maximum(one, other), torch.minimum(one, other), "amin")
        while not torch.equal(roots, roots[roots]):
            roots = roots[roots]


def _reasons(trace: Trace, atoms: Tensor) -> dict[int, str]:
    """Return why channels must stay, by atom."""
    pins = list(trace.pins)
    for name, reason in trace.misused.items():
        pins += [(labels, reason) for side in ((name, True), (name, False)) if (labels := _of(trace, side)) is not None]
    for (name, _), labels in trace.sides.items():
        if kind_of(trace.layers[name]) is None:
            kind = type(trace.layers[name]).__name__
            pins.append((labels, f"{name!r} is a {kind}, whose shape the Model artifact cannot describe"))
    reasons: dict[int, str] = {}
    for labels, reason in pins:
        for atom in atoms[labels.long()].unique().tolist():
            reasons.setdefault(atom, reason)
    return reasons


def _of(trace: Trace, side: Side) -> Tensor | None:
    return trace.sides.get(side, trace.produced.get(side[0]) if side[1] else None)


def _describe(root: str, trace: Trace, sides: Mapping[Side, Tensor], order: Tensor) -> dict[str, ChannelGroup | str]:
    """Return the groups of some atoms of a layer's outputs: one, unless they have different members.

    Values are reasons where channels must stay.
    """
    channel_of = torch.full((trace.labels + 1,), -1)
    channel_of[order] = torch.arange(len(order))
    counts = {}
    for side, atoms in sides.items():
        owners = channel_of[atoms]
        counts[side] = torch.bincount(owners[owners >= 0], minlength=len(order))
    found: dict[str, ChannelGroup | str] = {}
    for signature, channels in _alike(torch.stack(list(counts.values()), 1)).items():
        touched = [side for side, count in zip(counts, signature, strict=True) if count]
        producers = [name for name, output in touched if output and isinstance(trace.layers[name], WEIGHTED)]
        name = next((name for name in [root, *producers] if name not in found), None)
        if name is None:
            found[root] = "its outputs go different ways"
            continue
        index = torch.full((len(order),), -1)
        index[channels] = torch.arange(len(channels))
        members = []
        for side in sorted(touched, key=lambda side: side != (name, True)):
            owners = channel_of[sides[side]]
            owners = torch.where(owners >= 0, index[owners.clamp_min(0)], owners)
            entries = (owners >= 0).nonzero().flatten()
            arranged = entries[owners[entries].argsort(stable=True)].reshape(len(channels), -1)
            members.append(Member(side[0], trace.layers[side[0]], side[1], arranged))
        blocks = _blocks(members)
        found[name] = (
            ChannelGroup(name, tuple(members), blocks) if blocks else "its grouped convolutions need other blocks"
        )
        if len(channels) == 1:
            found[name] = "its outputs depend on each other, so that none can be removed alone"
    return found


def _distinct(atoms: Tensor) -> Tensor:
    """Return atoms in the order in which they first occur."""
    if len(atoms.unique()) == len(atoms):
        return atoms
    return torch.tensor(list(dict.fromkeys(atoms.tolist())))


def _alike(counts_CS: Tensor) -> dict[tuple[int, ...], Tensor]:
    """Return the channels [C] that have the same number of entries in every side [S], by these numbers."""
    if bool((counts_CS == counts_CS[0]).all()):
        return {tuple(counts_CS[0].tolist()): torch.arange(len(counts_CS))}
    signatures: dict[tuple[int, ...], list[int]] = {}
    for channel, signature in enumerate(counts_CS.tolist()):
        signatures.setdefault(tuple(signature), []).append(channel)
    return {signature: torch.tensor(channels) for signature, channels in signatures.items()}


def _blocks(members: Iterable[Member]) -> int:
    """Return the number of blocks that all grouped convolutions agree on, 0 if they do not."""
    blocks = 1
    for member in members:
        layer = member.layer
        if not isinstance(layer, nn.Conv2d) or layer.groups == 1 or is_depthwise(layer):
            continue
        side = layer.out_channels if member.output else layer.in_channels
        block_of = member.entries // (side // layer.groups)
        channels = len(member.entries)
        if channels % layer.groups:
            return 0
        expected = torch.arange(channels).unsqueeze(1) // (channels // layer.groups)
        fewer, more = sorted((blocks, layer.groups))
        if not torch.equal(block_of, expected.expand_as(block_of)) or more % fewer:
            return 0
        blocks = more
    return blocks
