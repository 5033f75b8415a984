"""Dependency groups: channels that must be removed together, and the entries of all layers that depend on them.

One pass under labels (see ``labels``) shows how channels go from layer to layer. Every group is then proved: a copy of
the network without some of its channels must run and compute what the network computes without them. Groups that are
not proved stay whole, with the reason.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kondense.artifacts.structure import RECURRENT, kind_of
from kondense.channels.groups import (
    WEIGHTED,
    ChannelGroup,
    Member,
    OwnTensor,
    input_slices,
    is_depthwise,
    narrowed,
    weight_from_inputs,
    weighted,
)
from kondense.channels.labels import Side, Trace
from kondense.channels.proof import unproved
from kondense.channels.surgery import side_length
from kondense.channels.tracing import trace_channels
from kondense.networks.layers import CONVOLUTIONS

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


Array = NDArray[np.int64]
PRODUCERS = (*WEIGHTED, *RECURRENT)


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
    trace, excluded, apart = trace_channels(module, image_shape), set(excluded), set[str]()
    while True:
        found, whole, merged = _assemble(trace, apart)
        found = {name: group for name, group in found.items() if not group.producers() & excluded}
        refuted = unproved(module, found, image_shape, splits=trace.splits) if proved else {}
        wrong = {name for name in merged & refuted.keys() if isinstance(refuted[name], str)}
        if not wrong:
            break
        apart |= wrong  # its parts may lose channels one by one
    groups = {}
    for name, group in found.items():
        outcome = refuted.get(name, group)
        if isinstance(outcome, ChannelGroup):
            groups[outcome.name] = outcome
        else:
            whole |= dict.fromkeys(group.producers(), outcome)
    return Dependencies(groups, {name: reason for name, reason in whole.items() if name not in excluded})


def _assemble(trace: Trace, apart: Collection[str]) -> tuple[dict[str, ChannelGroup], dict[str, str], set[str]]:
    """Return the groups that the trace shows, and the reasons of the layers whose outputs must stay.

    Also the names of the groups that hold the parts of a split layer together, which those in ``apart`` do not.
    """
    atoms = _components(trace)
    pinned = _reasons(trace, atoms)
    sides = {side: atoms[labels.numpy()] for side, labels in trace.sides.items()}
    sides = {side: ids for side, ids in sides.items() if ids.any()}
    touching = _Touching(sides, len(atoms))
    taken, stays = np.zeros(len(atoms), dtype=bool), np.zeros(len(atoms), dtype=bool)
    stays[list(pinned)] = True
    whole: dict[str, str] = {}
    groups: dict[str, ChannelGroup] = {}
    merged: set[str] = set()
    over = _atoms_of(atoms, trace.statistics)
    for name in (name for name, layer in trace.layers.items() if isinstance(layer, PRODUCERS)):
        ids = sides.get((name, True), np.zeros(0, dtype=np.int64))
        ids = ids[ids != 0]
        held, ids = ids[stays[ids]], ids[~stays[ids]]
        if len(held) or not len(ids):
            whole[name] = pinned[int(held.min())] if len(held) else _why_no_outputs(trace, name)
        if len(ids) and not taken[ids].all():
            order = np.fromiter(dict.fromkeys(ids[~taken[ids]].tolist()), np.int64)  # as they first occur
            touched = touching.of(order)
            one = _merge_parts(name, trace, touched, order) if name not in apart else None
            merged |= {name} if one else set()
            made = {name: one} if one else _describe(name, trace, touched, order)
            taken[ids] = True
            found = {key: group for key, group in made.items() if isinstance(group, ChannelGroup)}
            groups |= {
                key: dataclasses.replace(group, statistics=bool(over[ids].any()), computing=trace.computing)
                for key, group in found.items()
            }
            whole |= {key: reason for key, reason in made.items() if isinstance(reason, str)}
    return groups, whole, merged


class _Touching:
    """Which sides of layers each atom passes: the places of every atom in one list, one atom after the other."""

    def __init__(self, sides: Mapping[Side, Array], atoms: int) -> None:
        self.sides = list(sides.items())
        atom_of = np.concatenate([*(ids for _, ids in self.sides), np.zeros(0, dtype=np.int64)])
        side_of = np.repeat(np.arange(len(self.sides)), [len(ids) for _, ids in self.sides])
        self.side_of = side_of[atom_of.argsort(kind="stable")]
        self.counts = np.bincount(atom_of, minlength=atoms)
        self.starts = self.counts.cumsum() - self.counts

    def of(self, atoms: Array) -> dict[Side, Array]:
        """Return the sides that some atoms pass, with the atoms of each."""
        counts = self.counts[atoms]
        firsts = np.repeat(self.starts[atoms] - (counts.cumsum() - counts), counts)
        touched = np.bincount(self.side_of[firsts + np.arange(len(firsts))], minlength=len(self.sides))
        return dict(self.sides[number] for number in touched.nonzero()[0].tolist())


def _why_no_outputs(trace: Trace, name: str) -> str:
    if name in trace.misused:
        return trace.misused[name]
    if name not in trace.ran:
        return "the network does not run it"
    layer = trace.layers[name]
    return (
        "it has one output"
        if isinstance(layer, WEIGHTED) and side_length(layer, output=True) == 1
        else "its inputs stay"
    )


def _atoms_of(atoms: Array, labels: Iterable[Tensor]) -> NDArray[np.bool_]:
    """Return whether each atom is that of one of the labels, but for 0."""
    found = np.zeros(len(atoms), dtype=bool)
    for each in labels:
        found[atoms[each.numpy()]] = True
    found[0] = False
    return found


def _components(trace: Trace) -> Array:
    """Return the smallest label of the channels that are tied to each label, [labels + 1]."""
    roots = np.arange(trace.labels + 1)
    if not trace.ties:
        return roots
    first, second = (np.concatenate([part.numpy() for part in parts]) for parts in zip(*trace.ties, strict=True))
    while True:
        one, other = roots[first], roots[second]
        if np.array_equal(one, other):
            return roots
        np.minimum.at(roots, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(roots, roots[roots]):
            roots = roots[roots]


def _reasons(trace: Trace, atoms: Array) -> dict[int, str]:
    """Return why channels must stay, by atom."""
    pins = list(trace.pins)
    for name, reason in trace.misused.items():
        pins += [(labels, reason) for side in ((name, True), (name, False)) if (labels := _of(trace, side)) is not None]
    for (name, _), labels in trace.sides.items():
        if name in trace.layers and kind_of(trace.layers[name]) is None:
            kind = type(trace.layers[name]).__name__
            pins.append((labels, f"{name!r} is a {kind}, whose shape the Model artifact cannot describe"))
    reasons: dict[int, str] = {}
    for labels, reason in pins:
        for atom in dict.fromkeys(atoms[labels.numpy()].tolist()):
            reasons.setdefault(atom, reason)
    return reasons


def _of(trace: Trace, side: Side) -> Tensor | None:
    return trace.sides.get(side, trace.produced.get(side[0]) if side[1] else None)


def _describe(root: str, trace: Trace, sides: Mapping[Side, Array], order: Array) -> dict[str, ChannelGroup | str]:
    """Return the groups of some atoms of a layer's outputs: one, unless they have different members.

    Each is named after a layer; where there are more of them than layers that make them, the smallest stay. Values are
    reasons where channels must stay.
    """
    owners_of, counts_CS = _owners(trace, sides, order)
    found: dict[str, ChannelGroup | str] = {}
    alike = _alike(counts_CS)
    for signature, channels in sorted(alike.items(), key=lambda each: -len(each[1])):
        touched = [side for side, count in zip(sides, signature, strict=True) if count]
        producers = [name for name, output in touched if output and isinstance(trace.layers.get(name), PRODUCERS)]
        name = next((name for name in [root, *producers] if name not in found), None)
        if name is None:
            continue
        index = np.full(len(order) + 1, -1)  # the last entry is of no channel
        index[channels] = np.arange(len(channels))
        found[name] = _group(name, trace, {side: index[owners_of[side]] for side in touched}, len(channels))
    return found


def _merge_parts(root: str, trace: Trace, sides: Mapping[Side, Array], order: Array) -> ChannelGroup | None:
    """Return the group of a layer's outputs that are split into parts of one length which go different ways.

    Each of its channels is one of every part: where parts must stay of one length, none can lose channels alone.
    """
    owners_of, counts_CS = _owners(trace, sides, order)
    parts = list(_alike(counts_CS).values())
    length = min(map(len, parts))
    if len(parts) == 1 or length == 1 or any(len(part) % length for part in parts):
        return None
    if len(order) // length not in trace.splits:
        return None
    index = np.full(len(order) + 1, -1)  # the last entry is of no channel
    for part in parts:
        index[part] = np.arange(len(part)) % length
    group = _group(root, trace, {side: index[owners] for side, owners in owners_of.items()}, length)
    return group if isinstance(group, ChannelGroup) else None


def _owners(trace: Trace, sides: Mapping[Side, Array], order: Array) -> tuple[dict[Side, Array], Array]:
    """Return the place in ``order`` of every entry of each side, -1 for others, and the entries per place [C, S]."""
    channel_of = np.full(trace.labels + 1, -1)
    channel_of[order] = np.arange(len(order))
    owners_of = {side: channel_of[atoms] for side, atoms in sides.items()}
    counts = [np.bincount(owners + 1, minlength=len(order) + 1)[1:] for owners in owners_of.values()]
    return owners_of, np.stack(counts, 1)


def _group(name: str, trace: Trace, owners_of: Mapping[Side, Array], channels: int) -> ChannelGroup | str:
    """Return the group of channels that own the entries of some sides, or why they must stay."""
    if channels == 1:
        return "its outputs depend on each other, so that none can be removed alone"
    members = []
    for side in sorted(owners_of, key=lambda side: side != (name, True)):
        owners = owners_of[side]
        entries = (owners >= 0).nonzero()[0]
        if len(entries) % channels:
            return "its outputs go different ways"
        arranged = entries[owners[entries].argsort(kind="stable")].reshape(channels, -1)
        members.append(Member(side[0], _holder(trace, side[0]), side[1], torch.from_numpy(arranged)))
    blocks = _blocks(members)
    return ChannelGroup(name, tuple(members), blocks) if blocks else "its grouped convolutions need other blocks"


def _holder(trace: Trace, name: str) -> nn.Module | OwnTensor:
    return trace.layers[name] if name in trace.layers else trace.own[name][0]


def _alike(counts_CS: Array) -> dict[tuple[int, ...], Array]:
    """Return the channels [C] that have the same number of entries in every side [S], by these numbers."""
    if (counts_CS == counts_CS[0]).all():
        return {tuple(counts_CS[0].tolist()): np.arange(len(counts_CS))}
    signatures: dict[tuple[int, ...], list[int]] = {}
    for channel, signature in enumerate(counts_CS.tolist()):
        signatures.setdefault(tuple(signature), []).append(channel)
    return {signature: np.array(channels) for signature, channels in signatures.items()}


def _blocks(members: Iterable[Member]) -> int:
    """Return the number of blocks that all grouped convolutions agree on, 0 if they do not."""
    blocks = 1
    for member in members:
        parts, side = _parts(member)
        if parts == 1:
            continue
        block_of = member.entries // (side // parts)
        of_each = torch.stack([(block_of == part).sum(1) for part in range(parts)], 1)
        if bool((of_each == of_each[:1, :1]).all()):
            continue  # a channel has as many entries in each block
        channels = len(member.entries)
        if channels % parts:
            return 0
        expected = torch.arange(channels).unsqueeze(1) // (channels // parts)
        fewer, more = sorted((blocks, parts))
        if not torch.equal(block_of, expected.expand_as(block_of)) or more % fewer:
            return 0
        blocks = more
    return blocks


def _parts(member: Member) -> tuple[int, int]:
    """Return the number of blocks of a member that must lose the same number of entries, and how many it has."""
    layer = member.layer
    if isinstance(layer, nn.GroupNorm):
        return (1 if layer.num_groups == layer.num_channels else layer.num_groups), layer.num_channels
    if not isinstance(layer, CONVOLUTIONS) or is_depthwise(layer):
        return 1, 0
    return layer.groups, layer.out_channels if member.output else layer.in_channels
