"""Numbers of channels that modules of a network's own compute with: attributes as ``self.dim``, and in their code."""

import itertools
from collections.abc import Collection, Iterator, Mapping

from torch import nn

from kondense.artifacts.literals import literals_of, set_literal
from kondense.artifacts.structure import number_in, with_number
from kondense.channels.groups import ChannelGroup, OwnTensor

Numbers = tuple[tuple[str, str, int], ...]  # module, attribute or method:number, entries of a channel
MOST_LITERALS = 3  # of a group that are tried together


def numbers_of(module: nn.Module, group: ChannelGroup, lengths: Mapping[str, int]) -> Numbers:
    """Return the attributes that may hold the length of a side of a group: module, attribute, entries of a channel.

    Args:
        module: the network.
        group: channels of it.
        lengths: of the sides of its members, by name of the member; only of those that the group has alone.
    """
    entries = {lengths[member.name]: member.entries.shape[1] for member in group.members if member.name in lengths}
    found = []
    for name, part in around(module, group):
        for attribute, value in vars(part).items():
            count = number_in(value)
            if attribute[0] != "_" and attribute != "training" and count in entries:
                found.append((name, attribute, entries[count]))
    return tuple(found)


def choices_of_literals(
    module: nn.Module, group: ChannelGroup, lengths: Mapping[str, int], splits: Collection[int]
) -> Iterator[Numbers]:
    """Yield the numbers in the code of modules that may stand for counts of a group's channels, few at a time.

    Args:
        module: the network.
        group: channels of it.
        lengths: as of ``numbers_of``.
        splits: into how many parts the network splits channels; the code may hold the length of a part.
    """
    entries = {lengths[member.name]: member.entries.shape[1] for member in group.members if member.name in lengths}
    for length, of_channel in list(entries.items()):
        for parts in splits:
            if parts > 1 and length % parts == 0 and of_channel % parts == 0:
                entries.setdefault(length // parts, of_channel // parts)
    found = [
        (name, f"{method}:{number}", entries[value])
        for name, part in around(module, group)
        for method, numbers in literals_of(part).items()
        for number, value in numbers.items()
        if value in entries
    ]
    for count in range(1, min(MOST_LITERALS, len(found)) + 1):
        yield from itertools.combinations(found, count)


def around(module: nn.Module, group: ChannelGroup) -> list[tuple[str, nn.Module]]:
    """Return the modules of the user's own that hold a group's members, at any depth."""
    homes = {
        member.layer.owner if isinstance(member.layer, OwnTensor) else member.name.rpartition(".")[0]
        for member in group.members
    }
    above = {".".join(home.split(".")[:depth]) for home in homes for depth in range(home.count(".") + 2)}
    return [
        (name, part)
        for name, part in module.named_modules()
        if name in above and not type(part).__module__.startswith("torch.nn.modules.")
    ]


def count_down(owner: nn.Module, attribute: str, fewer: int) -> None:
    """Lower a number that a module holds, alone or in a tuple or list of one, or in the code of a method."""
    method, _, number = attribute.partition(":")
    if number:
        set_literal(owner, method, int(number), literals_of(owner)[method][int(number)] - fewer)
        return
    value = getattr(owner, attribute)
    setattr(owner, attribute, with_number(value, (number_in(value) or 0) - fewer))
