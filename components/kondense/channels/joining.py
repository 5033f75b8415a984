"""Groups whose channels go together, although none of them meets another's: one number of the network counts both.

A network that slices by the width of its tokens (``y[..., :c]``), takes the width of a head from it
(``c // self.num_heads``), or has one number for all widths runs only where all of them lose as many.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import torch

from kondense.channels.groups import ChannelGroup, Member, OwnTensor


def neighbours(groups: Mapping[str, ChannelGroup]) -> list[list[str]]:
    """Return the names of groups that have members in the same modules, several each."""
    sets: list[tuple[set[str], list[str]]] = []
    for name, group in groups.items():
        homes = {_home(member) for member in group.members}
        near = [each for each in sets if each[0] & homes]
        sets = [each for each in sets if each not in near]
        sets.append((homes.union(*(each[0] for each in near)), [*(one for each in near for one in each[1]), name]))
    return [names for _, names in sets if len(names) > 1]


def _home(member: Member) -> str:
    return member.layer.owner if isinstance(member.layer, OwnTensor) else member.name.rpartition(".")[0]


def join(groups: Iterable[ChannelGroup]) -> ChannelGroup | None:
    """Return the group of which a channel is one of each of the groups, or as many as make their numbers equal."""
    parts = list(groups)
    count = math.gcd(*(group.channels for group in parts))
    blocks = {group.blocks for group in parts}
    if count < 2 or blocks != {1}:
        return None
    tied = [group.tied(group.channels // count) if group.channels > count else group for group in parts]
    members: dict[tuple[str, bool], Member] = {}
    for member in (member for group in tied for member in group.members):
        before = members.get((member.name, member.output))
        entries = member.entries if before is None else torch.cat([before.entries, member.entries], 1)
        members[member.name, member.output] = dataclasses.replace(member, entries=entries)
    return dataclasses.replace(
        tied[0],
        members=tuple(members.values()),
        statistics=any(group.statistics for group in tied),
        joined=True,
        computing=frozenset().union(*(group.computing for group in tied)),
    )
