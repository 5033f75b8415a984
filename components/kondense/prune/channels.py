"""Structured pruning: removes channels, together with all weights of other layers that depend on them.

``dependencies`` finds the groups of channels, a score ranks the channels of each group, ``allocation`` decides how many
each group keeps, ``surgery`` removes the others and ``reconstruction`` fits the consumers to their previous outputs.
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kondense.channels.dependencies import (
    ChannelGroup,
    Member,
    find_dependencies,
    narrowed,
    weighted,
)
from kondense.channels.groups import WEIGHTED, by_input, by_output
from kondense.channels.proof import check_removal
from kondense.channels.surgery import remove
from kondense.errors import InputError
from kondense.networks.layers import TYPES
from kondense.processes import current
from kondense.prune.allocation import Cost, Group, Layer, choose_counts, smallest_counts, total_cost
from kondense.prune.context import Context
from kondense.prune.costs import layer_costs
from kondense.prune.fractions import parse_fractions
from kondense.prune.possible import describe, fixed_fraction, kept_whole, limits, offered
from kondense.prune.pruner import Masks, Pruner, check_scores
from kondense.prune.reconstruction import reconstruct
from kondense.prune.timing import Timing

# The score of each channel, [channels], of every group by name; the lowest are removed first.
Score = Callable[[nn.Module, Mapping[str, ChannelGroup]], Mapping[str, Tensor]]


def prepare(module: nn.Module, context: Context, score: Score) -> Pruner:
    """Return the method that removes the channels of ``module`` with the lowest scores.

    Args:
        module: pruned in place, step by step; its outputs are never removed.
        context: the request.
        score: ranks the channels.

    Raises:
        InputError: no channel can be removed, fewer than requested, or the network cannot be traced.
    """
    pruner = ChannelPruner(module, context, score)
    pruner.check()
    return pruner


class ChannelPruner(Pruner):
    """Prunes one network step by step.

    Attributes:
        found: what can be removed from the unpruned network, and what stays whole.
        original: channels of the unpruned network, by group.
        settled: whether ``layers`` gives a fraction for every group, so that ``sparsity`` has no effect.
        total: cost of the unpruned network, in the units of ``config.target``.
        timing: the measured latencies, if they are the target.
    """

    def __init__(self, module: nn.Module, context: Context, score: Score) -> None:
        self.module, self.context, self.config, self.score = module, context, context.config, score
        self.shape = context.dataset.shape
        found = find_dependencies(module, self.shape, context.excluded)
        self.found = offered(module, self.shape, self.config, found, context.fractions)
        self._groups = dict(self.found.groups)
        self._costs: dict[str, Layer] | None = None
        if not self._groups:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in kept_whole(self.found).items())
            raise InputError(
                f"the network has no channel to remove: all are outputs or excluded{reasons and f'; or {reasons}'}."
            )
        self._check_fractions()
        self.original = {name: group.channels for name, group in self.groups().items()}
        self.settled = all(self._fixed_sparsity(group, 1.0) is not None for group in self.groups().values())
        self.timing: Timing | None = None
        if self.config.target == "latency":
            self.timing = Timing(module, self.shape, self.config.latency_batch_size, context.session.checkpoint)
        self.total = 1.0 if self.timing else total_cost(self._layer_costs(), [], {})
        self.closest = ""

    def check(self) -> None:
        """Raise InputError unless the request can be met.

        Not checked: latencies, which must be measured, and a sparsity that is only an upper limit under a bound on
        the accuracy.
        """
        groups = self.described({name: torch.zeros(count) for name, count in self.original.items()}, 1.0)
        smallest = smallest_counts(groups, self.config.round_to)
        least = 0.0 if self.timing or self.context.floor else self.cost(groups)(smallest)
        if least > (1.0 - self.config.sparsity) * self.total and not self.settled:
            costs, excluded = self._layer_costs(), self.context.excluded
            reasons = limits(costs, groups, smallest, found=self.found, excluded=excluded)
            text = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise InputError(
                f"sparsity must be at most {1.0 - least / self.total:.4f} of the {self.config.target} of this network"
                f" (round_to {self.config.round_to}, layers {self.config.layers!r}, exclude {self.config.exclude!r}),"
                f" but got {self.config.sparsity}; limited by {text or 'the least channels of each layer'}."
            )

    def _check_fractions(self) -> None:
        for name in parse_fractions(self.config.layers):
            if name not in TYPES and name in self.found.whole:
                raise InputError(
                    f"layers must name layers that can lose channels, but {name!r} cannot: {self.found.whole[name]}."
                )

    def whole(self) -> dict[str, str]:
        """Return why layers keep all of their channels, by name."""
        few = {
            name: f"too few for round_to {self.config.round_to}"
            for name, count in self.original.items()
            if count <= describe(self.found.groups[name], torch.zeros(count)).multiple(self.config.round_to)
        }
        return kept_whole(self.found) | few

    def notes(self) -> list[str]:
        """Return which layers keep all of their channels, and why."""
        return [f"{name} keeps all of its channels: {reason}" for name, reason in self.whole().items()]

    def steps(self, requested: int, epochs: int) -> int:
        """Return by default 1 with ``reconstruct``, so that all epochs share one learning rate schedule."""
        return min(requested or (1 if self.config.reconstruct else 3), epochs)

    def step(self, share: float) -> Masks:
        """Remove a share of the requested sparsity."""
        scores = self.scores()
        groups = self.described(scores, share)
        budget = (1.0 - share * self.config.sparsity) * self.total
        cost = self.cost(groups)
        while True:  # until a choice is confirmed: every turn confirms one more of finitely many shapes
            counts = choose_counts(groups, cost, budget, scope=self.config.comparison, round_to=self.config.round_to)
            promised, spent = cost(counts), self.confirmed(cost, counts, budget)
            if spent <= budget or promised > budget:
                break
        self.note(spent, share)
        self.shrink(scores, counts)
        return self.context.masks(self.module)

    def confirmed(self, cost: Cost, counts: Mapping[str, int], budget: float) -> float:
        """Return the cost of ``counts``; a latency within the budget is confirmed by a longer measurement."""
        if self.timing is not None and cost(counts) <= budget:
            return self.timing.confirm(self.module, self.groups(), counts)
        return cost(counts)

    def note(self, cost: float, share: float) -> None:
        """Record whether the last step reached its share of the request."""
        budget = (1.0 - share * self.config.sparsity) * self.total
        self.closest = ""
        if share == 1.0 and cost > budget and not (self.context.floor or self.settled):
            self.closest = (
                f"sparsity {self.config.sparsity} of the {self.config.target} was not reached: the closest has"
                f" {1.0 - cost / self.total:.4f} (round_to {self.config.round_to})."
            )

    def shortfall(self) -> str:
        """Return why the request was not met, or an empty string."""
        return self.closest

    def details(self) -> dict[str, Any]:
        """Return the layers that stay whole, with reasons, and the measured latencies, if any."""
        whole = self.whole()
        details: dict[str, Any] = {"whole": whole} if whole else {}
        if self.timing is None:
            return details
        rows = [{"channels": dict(key), "latency_ratio": ratio} for key, ratio in self.timing.ratios.items()]
        return details | {"latency": {"unpruned_ms": self.timing.unpruned_ms, "rows": rows}}

    def shrink(self, scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        """Remove the channels with the lowest ``scores``, so that each group keeps ``counts`` of them."""
        removed = lowest(self.groups(), scores, counts)
        shrink(self.module, self.groups(), removed, self.context, checked=True)
        self._groups, self._costs = narrowed(self._groups, removed), None

    def scores(self) -> dict[str, Tensor]:
        """Return the score of every channel, by group."""
        groups = self.groups()
        shapes = {name: (group.channels,) for name, group in groups.items()}
        if current().several:  # on GPUs the last bits may differ, and with them the choice
            scores = current().from_first(lambda: _on_cpu(self.score(self.module, groups)))
            return check_scores(scores, shapes)
        return check_scores(self.score(self.module, groups), shapes)

    def groups(self) -> dict[str, ChannelGroup]:
        """Return the current groups of the network."""
        return self._groups

    def cost(self, groups: Sequence[Group]) -> Cost:
        """Return the cost of the network as a function of the channel counts."""
        if self.timing is not None:
            return functools.partial(self.timing.ratio, self.module, self.groups())
        return functools.partial(total_cost, self._layer_costs(), groups)

    def described(self, scores: Mapping[str, Tensor], share: float) -> list[Group]:
        """Return the groups in the form that the allocation needs."""
        return [
            describe(group, scores[name], fraction=self._fixed_sparsity(group, share), original=self.original[name])
            for name, group in self.groups().items()
        ]

    def _layer_costs(self) -> dict[str, Layer]:
        """Return the costs of the layers as they are; counting MACs runs the network."""
        if self._costs is None:
            self._costs = layer_costs(self.module, self.config.target, self.shape, self.original)
        return self._costs

    def _fixed_sparsity(self, group: ChannelGroup, share: float) -> float | None:
        return fixed_fraction(group, self.context.fractions, share)


def _on_cpu(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: score.cpu() if isinstance(score, Tensor) else score for name, score in scores.items()}


def shrink(
    module: nn.Module,
    groups: Mapping[str, ChannelGroup],
    removed: Mapping[str, Tensor],
    context: Context,
    *,
    checked: bool = False,
) -> None:
    """Remove channels of ``module`` in place and reconstruct the outputs of the consumers.

    Args:
        module: the network.
        groups: its groups.
        removed: the channels to remove, by group.
        context: says whether to reconstruct, and from which images.
        checked: prove first that the network computes the same as if nothing read the removed channels.

    Raises:
        InputError: it computes something else.
    """
    before = copy.deepcopy(module) if context.config.reconstruct else None
    if checked and any(len(channels) for channels in removed.values()):
        check_removal(module, groups, removed, context.dataset.shape)
    kept_outputs = remove(module, groups, removed)
    if before is not None and kept_outputs:
        reconstruct(module, before, kept_outputs, context)


def lowest(
    groups: Mapping[str, ChannelGroup], scores: Mapping[str, Tensor], counts: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return the channels with the lowest scores, so that each group keeps ``counts`` of them."""
    return {name: groups[name].lowest(scores[name], count) for name, count in counts.items()}


def weight_slices(member: Member, weight: Tensor | None = None) -> Tensor:
    """Return the slice of the layer's weight, or of a like tensor, for each entry of a member's side, [entries, n]."""
    weight = (weighted(member.layer).weight if weight is None else weight).detach()
    layer = weighted(member.layer)
    return (by_output(layer, weight) if member.output else by_input(layer, weight)).flatten(1)


def by_channel(member: Member, values: Tensor) -> Tensor:
    """Return the sum over each channel's entries of ``values`` [entries of the side] -> [channels]."""
    return values[member.entries].sum(1)


def sum_over_members(group: ChannelGroup, value: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the sum of ``value``, which maps [entries, n] -> [entries], over all weights removed with a channel."""
    total = torch.zeros(group.channels)
    for member in group.members:
        if isinstance(member.layer, WEIGHTED):
            total += by_channel(member, value(weight_slices(member)))
    return total
