"""Structured pruning: channels are really removed, with everything in other layers that belongs to them.

``dependencies`` says what belongs together, a method gives each channel of a group a score, ``allocation`` says
how many each group keeps, ``surgery`` removes the others and ``reconstruction`` lets the layers that read them
make up for the loss.
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kondense.channels.dependencies import ChannelGroup, Member, find_groups, input_slices
from kondense.channels.surgery import remove
from kondense.errors import InputError
from kondense.prune.allocation import Cost, Group, Layer, Part, choose_counts, smallest_counts, total_cost
from kondense.prune.costs import layer_costs
from kondense.prune.method import Masks, Method
from kondense.prune.reconstruction import IMAGES, reconstruct
from kondense.prune.request import Request
from kondense.prune.timing import Timing

# The score of each channel, [channels], of every group by name; the lowest go first.
Score = Callable[[nn.Module, Mapping[str, ChannelGroup]], Mapping[str, Tensor]]


def prepare(module: nn.Module, request: Request, score: Score) -> Method:
    """Return the method that removes the channels of ``module`` with the lowest scores.

    Args:
        module: pruned in place, step by step; its outputs are never among the channels.
        request: how far.
        score: the method.

    Raises:
        ValueError: no channel can be removed, fewer than asked for, or the network cannot be traced.
    """
    pruner = ChannelPruner(module, request, score)
    pruner.check()
    return pruner


class ChannelPruner(Method):
    """Prunes one network step by step; remembers what it was at first.

    Attributes:
        original: channels of the unpruned network, by group.
        settled: whether ``layers`` gives a fraction for every group, so that nothing is left to ``sparsity``.
        whole: what the unpruned network costs, in the units of ``config.target``.
        timing: the latencies measured, where they are the target.
    """

    def __init__(self, module: nn.Module, request: Request, score: Score) -> None:
        self.module, self.request, self.config, self.score = module, request, request.config, score
        self._found: dict[str, ChannelGroup] | None = None
        self.original = {name: group.channels for name, group in self.groups().items()}
        if not self.original:
            raise InputError("a network must have channels to remove, but its outputs and exclude leave none.")
        self.settled = all(self._own_sparsity(group, 1.0) is not None for group in self.groups().values())
        self.timing: Timing | None = None
        if self.config.target == "latency":
            self.timing = Timing(module, request.image_shape, self.config.latency_batch_size, request.checkpoint)
        self.whole = 1.0 if self.timing else total_cost(self._layer_costs(), [], {})
        self.closest = ""

    def check(self) -> None:
        """Raise ValueError unless the whole request can be met.

        A latency is known only when it is measured, and under a bound on the accuracy the amount is an upper end.
        """
        groups = self.described({name: torch.zeros(count) for name, count in self.original.items()}, 1.0)
        smallest = smallest_counts(groups, self.config.round_to)
        least = 0.0 if self.timing or self.request.floor else self.cost(groups)(smallest)
        if least > (1.0 - self.config.sparsity) * self.whole and not self.settled:
            fixed = [f"{group.name} ({group.channels})" for group in groups if smallest[group.name] == group.channels]
            raise InputError(
                f"sparsity must be at most {1.0 - least / self.whole:.4f} of the {self.config.target} of this network"
                f" (round_to {self.config.round_to}, layers {self.config.layers!r}, exclude {self.config.exclude!r}),"
                f" but got {self.config.sparsity}; layers too narrow to lose any: {', '.join(fixed) or 'none'}."
            )

    def steps(self, asked: int, epochs: int) -> int:
        """Return 1 where ``reconstruct`` repairs a removal: all epochs then share one schedule of the learning rate."""
        return min(asked or (1 if self.config.reconstruct else 3), epochs)

    def step(self, share: float) -> Masks:
        """Remove a share of what is asked for."""
        scores = self.score(self.module, self.groups())
        groups = self.described(scores, share)
        budget = (1.0 - share * self.config.sparsity) * self.whole
        cost = self.cost(groups)
        while True:  # until a choice stands: each turn confirms one more of finitely many shapes
            counts = choose_counts(groups, cost, budget, scope=self.config.comparison, round_to=self.config.round_to)
            promised, spent = cost(counts), self.confirmed(cost, counts, budget)
            if spent <= budget or promised > budget:
                break
        self.note(spent, share)
        self.shrink(scores, counts)
        return self.request.masks(self.module)

    def confirmed(self, cost: Cost, counts: Mapping[str, int], budget: float) -> float:
        """Return what ``counts`` cost; a latency within the budget is measured again for longer before it counts."""
        if self.timing is not None and cost(counts) <= budget:
            return self.timing.confirm(self.module, self.groups(), counts)
        return cost(counts)

    def note(self, cost: float, share: float) -> None:
        """Remember whether the last step reached its part of the request."""
        wanted = (1.0 - share * self.config.sparsity) * self.whole
        self.closest = ""
        if share == 1.0 and cost > wanted and not (self.request.floor or self.settled):
            self.closest = (
                f"sparsity {self.config.sparsity} of the {self.config.target} was not reached: the closest has"
                f" {1.0 - cost / self.whole:.4f} (round_to {self.config.round_to})."
            )

    def shortfall(self) -> str:
        """Say how far the request was met where it was not."""
        return self.closest

    def details(self) -> dict[str, Any]:
        """Return the latencies measured, if any."""
        if self.timing is None:
            return {}
        rows = [{"channels": dict(key), "latency_ratio": ratio} for key, ratio in self.timing.ratios.items()]
        return {"latency": {"unpruned_ms": self.timing.unpruned_ms, "rows": rows}}

    def shrink(self, scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        """Remove the channels with the lowest ``scores`` until every group has as many as ``counts`` says."""
        shrink(self.module, self.groups(), lowest(self.groups(), scores, counts), self.request)
        self._found = None

    def groups(self) -> dict[str, ChannelGroup]:
        """Return the groups of the network as it stands."""
        if self._found is None:
            self._found = find_groups(self.module, self.request.image_shape, self.request.excluded)
        return self._found

    def cost(self, groups: Sequence[Group]) -> Cost:
        """Return what the network would cost by the channels of each group."""
        if self.timing is not None:
            return functools.partial(self.timing.ratio, self.module, self.groups())
        return functools.partial(total_cost, self._layer_costs(), groups)

    def described(self, scores: Mapping[str, Tensor], share: float) -> list[Group]:
        """Return the groups as the allocation takes them."""
        return [
            Group(
                name=name,
                original=self.original[name],
                parts=tuple(_part(member) for member in group.members),
                scores=scores[name],
                sparsity=self._own_sparsity(group, share),
                blocks=group.blocks,
            )
            for name, group in self.groups().items()
        ]

    def _layer_costs(self) -> dict[str, Layer]:
        return layer_costs(self.module, self.config.target, self.request.image_shape, self.original)

    def _own_sparsity(self, group: ChannelGroup, share: float) -> float | None:
        fractions = self.request.fractions
        given = {layer: fractions[layer] for layer in sorted(group.producers()) if layer in fractions}
        if len(set(given.values())) > 1:
            text = ", ".join(f"{layer}={fraction}" for layer, fraction in given.items())
            raise InputError(f"layers that share their channels must lose the same fraction, but got {text}.")
        return share * next(iter(given.values())) if given else None


def shrink(
    module: nn.Module,
    groups: Mapping[str, ChannelGroup],
    removed: Mapping[str, Tensor],
    request: Request,
    *,
    images: int = IMAGES,
) -> None:
    """Remove channels of ``module``, in place, and let the others make up for them.

    Args:
        module: the network.
        groups: its groups.
        removed: the channels that leave, by group.
        request: says whether to reconstruct, and from which images.
        images: how many of them.
    """
    before = copy.deepcopy(module) if request.config.reconstruct else None
    kept_outputs = remove(module, groups, removed)
    if before is not None and kept_outputs:
        reconstruct(module, before, kept_outputs, request, images=images)


def lowest(
    groups: Mapping[str, ChannelGroup], scores: Mapping[str, Tensor], counts: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return the channels with the lowest scores, so that each group in ``counts`` keeps as many."""
    return {name: groups[name].lowest(scores[name], count) for name, count in counts.items()}


def weight_slices(member: Member, weight: Tensor | None = None) -> Tensor:
    """Return what each entry of a member's side has of the layer's weight, or of a tensor like it, [entries, n]."""
    assert isinstance(member.layer, nn.Conv2d | nn.Linear)
    weight = (member.layer.weight if weight is None else weight).detach()
    groups = member.layer.groups if isinstance(member.layer, nn.Conv2d) else 1
    return (weight if member.output else input_slices(weight, groups)).flatten(1)


def by_channel(member: Member, values: Tensor) -> Tensor:
    """Return the sum over each channel's entries of ``values`` [entries of the side] -> [channels]."""
    return values[member.entries].sum(1)


def sum_over_members(group: ChannelGroup, value: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the sum over all weights that leave with a channel of ``value``, which maps [entries, n] -> [entries]."""
    total = torch.zeros(group.channels)
    for member in group.members:
        if isinstance(member.layer, nn.Conv2d | nn.Linear):
            total += by_channel(member, value(weight_slices(member)))
    return total


def _part(member: Member) -> Part:
    groups = member.layer.groups if isinstance(member.layer, nn.Conv2d) and not member.output else 1
    return Part(member.name, member.output, member.entries.shape[1] / groups)
