"""Numbers of channels that modules of a network's own compute with: attributes as ``self.dim``, and in their code."""

import itertools
from collections.abc import Collection, Iterator, Mapping

from torch import nn

from kondense.artifacts.literals import literals_of, set_literal
from kondense.artifacts.numbers import numbers_held, set_number
from kondense.channels.groups import ChannelGroup, OwnTensor

Numbers = tuple[tuple[str, str, int], ...]  # module, attribute or method:number, entries of a channel
MOST_LITERALS = 3  # of a group that are tried together


def numbers_of(module: nn.Module, group: ChannelGroup, lengths: Mapping[int, int]) -> Numbers:
    """Return the attributes that may hold the length of a side of a group: module, attribute, entries of a channel.

    Args:
        module: the network.
        group: channels of it.
        lengths: the entries of a channel, by the length of a side of a layer, or of the part of it that the group has.
    """
    return tuple(
        (name, attribute, lengths[count])
        for name, part in (*around(module, group), *unflattening(module))
        for attribute, count in numbers_held(part).items()
        if count in lengths
    )


def unflattening(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules of torch that hold numbers of channels and no tensor of them."""
    return [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Unflatten)]


def parts_by_numbers(module: nn.Module, group: ChannelGroup, lengths: Mapping[int, int]) -> set[int]:
    """Return into how many parts of equal length numbers that modules hold may divide a group's channels.

    A width of ``self.heads * self.dim`` may be that of ``heads`` parts with ``dim`` channels, or the other way round.

    Args:
        module: the network.
        group: channels of it.
        lengths: as of ``numbers_of``.
    """
    held = {count for _, part in around(module, group) for count in numbers_held(part).values() if count > 1}
    fits = {(length, count) for length in lengths for count in held if length % count == 0 and count < length}
    return {parts for length, count in fits for parts in (count, length // count)}


def choices_of_literals(
    module: nn.Module, group: ChannelGroup, lengths: Mapping[int, int], splits: Collection[int]
) -> Iterator[Numbers]:
    """Yield numbers of modules that may stand for counts of a group's channels, few at a time: in code, or of parts.

    Args:
        module: the network.
        group: channels of it.
        lengths: as of ``numbers_of``.
        splits: into how many parts the network splits channels; the code may hold the length of a part.
    """
    parts_alone = {
        length // parts: of_channel // parts
        for length, of_channel in lengths.items()
        for parts in splits
        if parts > 1 and length % parts == 0 and of_channel % parts == 0
    }
    entries = parts_alone | dict(lengths)
    found = [
        (name, f"{method}:{number}", entries[value])
        for name, part in around(module, group)
        for method, numbers in literals_of(part).items()
        for number, value in numbers.items()
        if value in entries
    ]
    found += [
        (name, attribute, entries[value])
        for name, part in around(module, group)
        for attribute, value in numbers_held(part).items()
        if value in entries and value not in lengths  # those that numbers_of has not
    ]
    for count in range(1, min(MOST_LITERALS, len(found)) + 1):
        yield from itertools.combinations(found, count)


def around(module: nn.Module, group: ChannelGroup) -> list[tuple[str, nn.Module]]:
    """Return the modules of the user's own that hold a group's members, at any depth."""
    homes = dict.fromkeys(
        member.layer.owner if isinstance(member.layer, OwnTensor) else member.name.rpartition(".")[0]
        for member in group.members
    )
    above = {".".join(home.split(".")[:depth]) for home in homes for depth in range(home.count(".") + 2)}
    named = [(name, module.get_submodule(name)) for name in sorted(above, key=lambda name: _order(module, name))]
    return [(name, part) for name, part in named if not type(part).__module__.startswith("torch.nn.modules.")]


def _order(module: nn.Module, name: str) -> list[int]:
    """Return the place of a module among the others of the network, which is that of ``named_modules``."""
    places = []
    for part in filter(None, name.split(".")):
        places.append(list(module._modules).index(part))
        module = module._modules[part]  # type: ignore[assignment]
    return places


def count_down(owner: nn.Module, attribute: str, fewer: int) -> None:
    """Lower a number that a module holds, alone or in a tuple or list of one, or in the code of a method."""
    method, _, number = attribute.partition(":")
    if number:
        set_literal(owner, method, int(number), literals_of(owner)[method][int(number)] - fewer)
        return
    set_number(owner, attribute, numbers_held(owner)[attribute] - fewer)
