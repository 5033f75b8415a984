"""Proof that groups are right: without some channels, a network computes what it does when nothing reads them.

The outputs of every convolution and fully connected layer are compared, not only those of the network: what goes wrong
in one layer may be hardly seen at the end.
"""

import copy
import dataclasses
import itertools
import math
import re
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from kondense.artifacts.equivalence import (
    COARSE,
    SUSPICIOUS,
    TOLERANCE,
    WITHOUT_VALUE,
    evaluating,
    relative_change,
)
from kondense.channels.attempts import Attempts
from kondense.channels.groups import ChannelGroup, OwnTensor
from kondense.channels.joining import join, neighbours
from kondense.channels.numbers import around, choices_of_literals, numbers_of, parts_by_numbers
from kondense.channels.recording import Removed, expected, recorded
from kondense.channels.surgery import axis_length, copy_tensors, remove, restored, side_length
from kondense.channels.tracing import own_training, trains_otherwise
from kondense.errors import InputError

SECONDS = 60.0  # of processor time; groups that are not proved by then stay whole
SHARES = (0.3, 0.5)  # of the channels of a group that a proof removes, another of each group
TINY = 1e-3  # weights that are all below it hide what lies behind them, such as a new network's last scale
IMAGES = 2
MOST_TRIES = 24  # of a group with other numbers in the code

NO_RUN = "the network no longer runs (is a number of channels written in its code?)"
TOGETHER = "its channels cannot be removed together with those of other layers"
Outcome = ChannelGroup | str
Kind = tuple[object, ...]


@dataclasses.dataclass(frozen=True)
class Change:
    """Where the network without channels computes something else.

    Attributes:
        layer: the first whose outputs differ, empty for those of the network.
        amount: relative to its largest output; infinite if the network does not run.
    """

    layer: str
    amount: float

    def __str__(self) -> str:
        if self.amount == WITHOUT_VALUE:
            return NO_RUN
        place = f", first those of {self.layer!r}" if self.layer else ""
        return f"the outputs change by {self.amount:.2g} of the largest{place}"


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
        module: the network, in evaluation mode; its layers are changed and put back.
        groups: its groups. Several that go only together become one, under all of their names.
        image_shape: shape of one image, (C, H, W).
        splits: into how many parts the network splits its channels; a group may need to lose the same of each.
        seconds: processor time after which groups stay whole.
    """
    images_NCHW = torch.randn(IMAGES, *image_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), restored(module):
        _make_loud(module)
        proof = _Proof(module, images_NCHW, time.process_time() + seconds)
        left = dict(groups)
        changes = proof.settled(left, splits)
        left = {name: group for name, group in left.items() if not isinstance(changes.get(name), str)}
        stuck = {
            name: groups[name] for name, outcome in changes.items() if isinstance(outcome, str) and NO_RUN in outcome
        }
        for names in neighbours(stuck):
            joined = proof.joined(left, [stuck[name] for name in names], splits)
            if joined is not None and not isinstance(
                proof.settled(together := left | {joined.name: joined}, splits).get(joined.name), str
            ):
                left = together
                changes |= dict.fromkeys(names, joined)
    return changes


@torch.no_grad()
def check_removal(
    module: nn.Module, groups: Mapping[str, ChannelGroup], removed: Removed, image_shape: tuple[int, int, int]
) -> None:
    """Raise InputError unless ``module`` computes without channels what it does when nothing reads them.

    Args:
        module: the network; put back as it was.
        groups: its groups.
        removed: the channels [n] to remove from each group, by name.
        image_shape: shape of one image, (C, H, W).
    """
    images_NCHW = torch.randn(IMAGES, *image_shape, generator=torch.Generator().manual_seed(1))
    with evaluating(module):
        change = _Proof(module, images_NCHW, math.inf).compared(groups, removed)
    if change is not None:
        names = ", ".join(name for name, channels in removed.items() if len(channels))
        raise InputError(
            f"removing channels of {names} must leave what the network computes from the others, but {change};"
            " name the layers in exclude."
        )


class _Proof:
    """Removes channels of a network, compares, and puts them back."""

    def __init__(self, module: nn.Module, images_NCHW: Tensor, deadline: float) -> None:
        self.module, self.images_NCHW, self.deadline = module, images_NCHW, deadline
        self.double: nn.Module | None = None
        self.in_training = False  # whether what is tried must run in training, too
        self.mended_names: set[str] = set()
        self.places: dict[Kind, int | None] = {}  # of the attempt that mended a group of the kind, if any did
        self.kinds: dict[int, tuple[ChannelGroup, Kind]] = {}

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.process_time() > self.deadline

    def settled(self, left: dict[str, ChannelGroup], splits: Collection[int]) -> dict[str, Outcome]:
        """Return the groups that are wrong, each as it is right or why it must stay; ``left`` becomes what is right."""
        changes: dict[str, Outcome] = {}
        while left and (change := self.change(left, left) or self.stops(left)) is not None:
            wrong = self.wrong(left, change)
            for name, alone in wrong.items():
                if alone is None or self.late:
                    changes[name] = "there was no time to prove it"
                else:
                    changes[name] = self.mended(left, name, alone, splits)
                if isinstance(outcome := changes[name], ChannelGroup):
                    left[name] = outcome
                else:
                    del left[name]
            if not wrong:
                changes |= dict.fromkeys(left, TOGETHER)
                left.clear()
        return changes

    def joined(
        self, groups: Mapping[str, ChannelGroup], parts: Sequence[ChannelGroup], splits: Collection[int]
    ) -> ChannelGroup | None:
        """Return groups that do not go alone as one that goes beside ``groups``, if it does."""
        one = join(parts)
        if one is None or self.late:
            return None
        beside = dict(groups) | {one.name: one}
        change = self.differs(beside, [one.name])
        return one if change is None else self.first_right(beside, one.name, change, splits)

    def change(self, groups: Mapping[str, ChannelGroup], names: Iterable[str]) -> Change | None:
        """Return where the network without some channels of the named groups differs first, if anywhere."""
        return self.compared(groups, {name: _some(groups[name]) for name in names})

    def differs(self, groups: Mapping[str, ChannelGroup], names: Iterable[str]) -> Change | None:
        """Return whether the network without some channels of the named groups differs; cheaper than where."""
        return self.compared(groups, {name: _some(groups[name]) for name in names}, placed=False)

    def compared(self, groups: Mapping[str, ChannelGroup], removed: Removed, *, placed: bool = True) -> Change | None:
        """Return where the network without the ``removed`` channels differs first, if anywhere.

        The place is left out if the network no longer runs and ``placed`` is false.
        """
        change = _change(self.module, groups, removed, self.images_NCHW, SUSPICIOUS, placed=placed)
        if change is None and self.in_training:
            return self.stops_in_training(groups, removed)
        if change is None or change.amount == WITHOUT_VALUE:
            return change
        self.double = self.double or copy.deepcopy(self.module).double()  # rounding of float32 may explain it
        try:
            return _change(self.double, groups, removed, self.images_NCHW.double(), TOLERANCE)
        except Exception:  # a network with a data type of its own
            return change if change.amount > COARSE else None

    def stops(self, groups: Mapping[str, ChannelGroup]) -> Change | None:
        """Return whether the network does not run in training without channels that evaluation does without.

        From then on all forms are run in training, too.
        """
        if self.in_training or not trains_otherwise(self.module):
            return None
        change = self.stops_in_training(groups, {name: _some(group) for name, group in groups.items()})
        if change is None or self.stops_in_training({}, {}):  # with all channels, too
            return None
        self.in_training = True
        return change

    def stops_in_training(self, groups: Mapping[str, ChannelGroup], removed: Removed) -> Change | None:
        """Return whether the network without channels does not run in training."""
        random = torch.get_rng_state()
        try:
            with restored(self.module), own_training(self.module):
                remove(self.module, groups, removed)
                copy_tensors(self.module.modules())  # what is left is less to copy; the pass may write to it
                self.module(self.images_NCHW)
        except Exception:  # a network's own code may raise anything
            return Change("", WITHOUT_VALUE)
        finally:
            torch.set_rng_state(random)
        return None

    def wrong(self, groups: Mapping[str, ChannelGroup], change: Change) -> dict[str, Change | None]:
        """Return the groups that are wrong on their own, with what changes, of those that a change may come from.

        Those that are like one of them are looked at, too. The change is None where there was no time to see it.
        """
        near = [name for name, group in groups.items() if change.layer in {member.name for member in group.members}]
        alike: dict[Kind, list[str]] = {}
        for name in groups:
            alike.setdefault(self.kind(groups[name]), []).append(name)
        found = self.alone(groups, near) or self.halved(groups, list(itertools.chain.from_iterable(alike.values())))
        kinds = dict.fromkeys(self.kind(groups[name]) for name in found)
        others = [name for kind in kinds for name in alike[kind] if name not in found and name not in near]
        return found | self.alone(groups, others)

    def alone(self, groups: Mapping[str, ChannelGroup], names: Iterable[str]) -> dict[str, Change | None]:
        """Return those of the groups that are wrong on their own, with what changes; all others when time is up."""
        found: dict[str, Change | None] = {}
        for name in names:
            if self.late:
                found[name] = None
            elif (change := self.differs(groups, [name])) is not None:
                found[name] = change
        return found

    def halved(self, groups: Mapping[str, ChannelGroup], names: list[str]) -> dict[str, Change | None]:
        """Return the groups that are wrong, found by halving; those of a kind stand side by side."""
        if self.late or not names:
            return dict.fromkeys(names)
        if (change := self.differs(groups, names)) is None:
            return {}
        if len(names) == 1:
            return {names[0]: change}
        middle = len(names) // 2
        return self.halved(groups, names[:middle]) | self.halved(groups, names[middle:])

    def mended(self, groups: Mapping[str, ChannelGroup], name: str, change: Change, splits: Collection[int]) -> Outcome:
        """Return a wrong group as it is right, which loses the same of each part, or the reason why it must stay."""
        if name in self.mended_names:
            return TOGETHER
        self.mended_names.add(name)
        if (mended := self.first_right(groups, name, change, splits)) is not None:
            return mended
        return f"without some of its channels {change}"

    def first_right(
        self, groups: Mapping[str, ChannelGroup], name: str, change: Change, splits: Collection[int]
    ) -> ChannelGroup | None:
        """Return the first form of a wrong group that is right; where another of its kind had none, none is tried."""
        kind = (*self.kind(groups[name]), change.amount == WITHOUT_VALUE)
        place = self.places.get(kind, 0)
        if place is None:
            return None
        attempts = Attempts(self.module, groups[name])
        if kind not in self.places:
            with attempts.noted(groups[name]):
                self.differs(groups, [name])
        plain = list(self.forms(groups, name, change, splits))
        in_code = self.with_literals(groups, [form for form in (groups[name], *plain) if not form.numbers], splits)
        forms = [*plain, *itertools.islice(in_code, MOST_TRIES)]
        if change.amount == WITHOUT_VALUE:
            products = parts_by_numbers(self.module, groups[name], self.lengths(groups[name])).difference(splits)
            in_products = self.with_literals(groups, _tied_by(groups[name], products), products)
            forms += itertools.islice(in_products, MOST_TRIES)
        for number in dict.fromkeys([min(place, len(forms)), *range(len(forms))]):
            if self.late:
                return None
            if number == len(forms) or attempts.in_vain(forms[number]):
                continue
            with attempts.noted(forms[number]):
                wrong = self.differs(dict(groups) | {name: forms[number]}, [name])
            if not wrong:
                self.places[kind] = number
                return forms[number]
        self.places[kind] = None
        return None

    def forms(
        self, groups: Mapping[str, ChannelGroup], name: str, change: Change, splits: Collection[int]
    ) -> Iterator[ChannelGroup]:
        """Yield what a wrong group may be: with numbers in attributes, with parts that lose the same."""
        group = groups[name]
        if change.amount == WITHOUT_VALUE and (numbers := numbers_of(self.module, group, self.lengths(group))):
            yield dataclasses.replace(group, numbers=numbers)
            for number in numbers if 1 < len(numbers) <= MOST_TRIES else ():  # others may be equal by chance
                yield dataclasses.replace(group, numbers=(number,))
        yield from _tied_by(group, splits)

    def kind(self, group: ChannelGroup) -> Kind:
        """Return what groups have in common whose members are alike, in modules of the same classes."""
        known = self.kinds.get(id(group))
        if known is not None and known[0] is group:
            return known[1]
        members = tuple(
            (re.sub(r"\d+", "#", member.name), member.output, *member.entries.shape) for member in group.members
        )
        classes = tuple(type(part) for _, part in around(self.module, group))
        kind = (members, group.blocks, group.statistics, classes)
        self.kinds[id(group)] = group, kind
        return kind

    def with_literals(
        self, groups: Mapping[str, ChannelGroup], forms: Iterable[ChannelGroup], splits: Collection[int]
    ) -> Iterator[ChannelGroup]:
        """Yield forms of a group with numbers in the code of modules that may stand for counts of its channels."""
        taken = {(owner, attribute) for group in groups.values() for owner, attribute, _ in group.numbers}
        for form in forms:
            lengths = self.lengths(form)
            held = numbers_of(self.module, form, lengths)
            for literals in choices_of_literals(self.module, form, lengths, splits):
                if taken.isdisjoint((owner, attribute) for owner, attribute, _ in literals):
                    for numbers in dict.fromkeys([literals, (*held, *literals)]):
                        yield dataclasses.replace(form, numbers=numbers)

    def lengths(self, group: ChannelGroup) -> dict[int, int]:
        """Return the entries of a channel in a side, by the length of the side, or of the group's part of it."""
        lengths = {}
        for member in group.members:
            if isinstance(place := member.layer, OwnTensor):
                length = axis_length(self.module.get_submodule(place.owner), place)
            else:
                length = side_length(self.module.get_submodule(member.name), output=member.output)
            if length == member.entries.numel():
                lengths[length] = member.entries.shape[1]
        of_parts = {member.entries.numel(): member.entries.shape[1] for member in group.members}
        return of_parts | lengths


def _tied_by(group: ChannelGroup, splits: Iterable[int]) -> list[ChannelGroup]:
    """Return the forms of a group that lose the same of each part, for every number of parts that divides it."""
    parts = sorted(part for part in splits if 1 < part < group.channels and group.channels % part == 0)
    return [group.tied(part) for part in parts]


def _change(
    module: nn.Module,
    groups: Mapping[str, ChannelGroup],
    removed: Removed,
    images_NCHW: Tensor,
    limit: float,
    *,
    placed: bool = True,
) -> Change | None:
    """Return where ``module`` without channels first differs by more than ``limit`` from what reads none of them."""
    with restored(module):
        kept = remove(module, groups, removed)
        actual = recorded(module, images_NCHW, {}, failing=True)
    if not placed and not (actual and not actual[-1][0]):  # the network's own outputs are not there
        return Change("", WITHOUT_VALUE)
    wanted_record = expected(module, groups, removed, images_NCHW, kept)
    for place, (layer, wanted, shapes) in enumerate(wanted_record):
        if place == len(actual):
            return Change(layer, WITHOUT_VALUE)
        _, got, shapes_now = actual[place]
        if shapes_now == shapes:
            amount = max((relative_change(one, other) for one, other in zip(wanted, got, strict=True)), default=0.0)
            if amount > limit:
                return Change(layer, amount)
        elif not layer:  # the channels of a layer along another axis may be fewer; the network's outputs are the same
            return Change(layer, WITHOUT_VALUE)
    return None


def _some(group: ChannelGroup) -> Tensor:
    """Return channels of a group, as many of each block, but not all.

    The first ones are among them, so that parts of equal length do not lose the same; nor do blocks, nor groups.
    """
    per_block, number = group.channels // group.blocks, zlib.crc32(group.name.encode())
    share = SHARES[0] + (SHARES[1] - SHARES[0]) * (number % 64) / 63
    count = min(max(1, round(share * per_block)), per_block - 1)
    first = torch.arange((count + 1) // 2)
    rest = torch.randperm(per_block - len(first), generator=torch.Generator().manual_seed(number)) + len(first)
    some = torch.cat([first, rest])[:count]
    parts = [(per_block - 1 - some if block % 2 else some) + block * per_block for block in range(group.blocks)]
    return torch.cat(parts).sort().values


def _make_loud(module: nn.Module) -> None:
    """Replace weights near zero by random ones, so that nothing is hidden behind them."""
    generator = torch.Generator().manual_seed(2)
    places = [
        (layer, key, weight)
        for layer in module.modules()
        if not isinstance(layer, nn.RNNBase)  # which computes with a list of its own
        for key, weight in layer._parameters.items()
        if weight is not None and weight.is_floating_point() and weight.numel()
    ]
    quiet: dict[int, nn.Parameter] = {}
    for layer, key, weight in places:
        few = abs(float(weight.detach().view(-1)[0])) if weight.is_contiguous() else 0.0  # which tells as a rule
        if few < TINY and float(weight.abs().max()) < TINY:
            spread = (len(weight) / weight.numel()) ** 0.5 if weight.ndim else 1.0
            noise = spread * torch.randn(weight.shape, generator=generator).to(weight)
            quiet.setdefault(id(weight), nn.Parameter(noise, requires_grad=False))
            layer._parameters[key] = quiet[id(weight)]
