"""Which numbers a network came to before it failed, so that forms of a group that fail alike are not tried.

A form of a group lowers numbers that modules hold, or that stand in their code (see ``numbers``). Where a network fails
before it comes to a number, it fails in the same way with that number lowered.
"""

import contextlib
from collections.abc import Iterator

from torch import nn

from kondense.channels.groups import ChannelGroup
from kondense.channels.numbers import around

FORWARD = "forward:"
Number = tuple[str, str, int]


class Attempts:
    """The forms of one group that were tried, each with the modules whose forward the network had begun.

    Args:
        module: the network.
        group: the group.
    """

    def __init__(self, module: nn.Module, group: ChannelGroup) -> None:
        self.parts = dict(around(module, group))
        self.tried: list[tuple[int, frozenset[Number], frozenset[str]]] = []  # channels, numbers, modules begun

    @contextlib.contextmanager
    def noted(self, form: ChannelGroup) -> Iterator[None]:
        """Note the modules that begin in the block, which tries a form."""
        begun: set[str] = set()
        hooks = [
            part.register_forward_pre_hook(lambda *_, name=name: begun.add(name)) for name, part in self.parts.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self.tried.append((form.channels, frozenset(form.numbers), frozenset(begun)))

    def in_vain(self, form: ChannelGroup) -> bool:
        """Return whether a form only lowers further numbers to which the network did not come in one that was tried."""
        numbers = frozenset(form.numbers)
        return any(
            channels == form.channels
            and lowered < numbers
            and not any(self._met(each, begun) for each in numbers - lowered)
            for channels, lowered, begun in self.tried
        )

    def _met(self, number: Number, begun: frozenset[str]) -> bool:
        """Return whether the network may have come to a number; the module around it may read it or call its method."""
        owner, attribute, _ = number
        if owner in begun or owner not in self.parts:
            return True
        return not attribute.startswith(FORWARD) and owner.rpartition(".")[0] in begun
