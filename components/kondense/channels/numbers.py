"""Numbers of channels that modules of a network's own hold as attributes, such as ``self.dim``, and compute with."""

from collections.abc import Mapping

from torch import nn

from kondense.artifacts.structure import number_in, with_number
from kondense.channels.groups import ChannelGroup, OwnTensor


def numbers_of(module: nn.Module, group: ChannelGroup, lengths: Mapping[str, int]) -> tuple[tuple[str, str, int], ...]:
    """Return the attributes that may hold the length of a side of a group: module, attribute, entries of a channel.

    Args:
        module: the network.
        group: channels of it.
        lengths: of the sides of its members, by name of the member; only of those that the group has alone.
    """
    entries = {lengths[member.name]: member.entries.shape[1] for member in group.members if member.name in lengths}
    homes = {
        member.layer.owner if isinstance(member.layer, OwnTensor) else member.name.rpartition(".")[0]
        for member in group.members
    }
    above = {".".join(home.split(".")[:depth]) for home in homes for depth in range(home.count(".") + 2)}
    found = []
    for name, part in module.named_modules():
        if name in above and not type(part).__module__.startswith("torch.nn.modules."):
            for attribute, value in vars(part).items():
                count = number_in(value)
                if attribute[0] != "_" and attribute != "training" and count in entries:
                    found.append((name, attribute, entries[count]))
    return tuple(found)


def count_down(owner: nn.Module, attribute: str, fewer: int) -> None:
    """Lower a number that a module holds, alone or in a tuple or list of one."""
    value = getattr(owner, attribute)
    setattr(owner, attribute, with_number(value, (number_in(value) or 0) - fewer))
