"""Structured pruning: channels are really removed, with everything in other layers that belongs to them.

``dependencies`` says what belongs together, a method gives each channel of a group a score, ``allocation`` says
how many each group keeps, ``surgery`` removes the others and ``reconstruction`` lets the layers that read them
make up for the loss.
"""

import copy
import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from components.prune.allocation import Group, Layer, Part, choose_counts, smallest_counts, total_cost
from components.prune.costs import layer_costs
from components.prune.dependencies import ChannelGroup, Member, find_groups, input_slices
from components.prune.method import Masks, Method
from components.prune.reconstruction import reconstruct
from components.prune.request import Request
from components.prune.surgery import remove

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
    """Prunes one network step by step; remembers what it was at first."""

    def __init__(self, module: nn.Module, request: Request, score: Score) -> None:
        self.module, self.request, self.config, self.score = module, request, request.config, score
        self.groups: dict[str, ChannelGroup] | None = None
        self.original = {name: group.channels for name, group in self._groups().items()}
        self.whole = total_cost(self._layer_costs(), [], {})

    def check(self) -> None:
        """Raise ValueError unless the whole request can be met."""
        if not self.original:
            raise ValueError("a network must have channels to remove, but its outputs and exclude leave none.")
        groups = self._described({name: torch.zeros(count) for name, count in self.original.items()}, 1.0)
        smallest = smallest_counts(groups, self.config.round_to)
        least = total_cost(self._layer_costs(), groups, smallest)
        if least > (1.0 - self.config.sparsity) * self.whole:
            whole = [f"{group.name} ({group.channels})" for group in groups if smallest[group.name] == group.channels]
            raise ValueError(
                f"sparsity must be at most {1.0 - least / self.whole:.4f} of the {self.config.target} of this network"
                f" (round_to {self.config.round_to}, layers {self.config.layers!r}, exclude {self.config.exclude!r}),"
                f" but got {self.config.sparsity}; all of their channels keep {', '.join(whole) or 'no layers'}."
            )

    def step(self, share: float) -> Masks:
        """Remove a share of what is asked for."""
        scores = self.score(self.module, self._groups())
        groups = self._described(scores, share)
        counts = choose_counts(
            groups,
            functools.partial(total_cost, self._layer_costs(), groups),
            (1.0 - share * self.config.sparsity) * self.whole,
            scope=self.config.scope,
            round_to=self.config.round_to,
        )
        self.shrink(scores, counts)
        return self.request.masks(self.module)

    def shrink(self, scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        """Remove the channels with the lowest ``scores`` until every group has as many as ``counts`` says."""
        groups = self._groups()
        removed = {name: groups[name].lowest(scores[name], count) for name, count in counts.items()}
        before = copy.deepcopy(self.module) if self.config.reconstruct else None
        kept_outputs = remove(groups, removed)
        self.groups = None
        if before is not None and kept_outputs:
            reconstruct(self.module, before, kept_outputs, self.request)

    def _groups(self) -> dict[str, ChannelGroup]:
        if self.groups is None:
            self.groups = find_groups(self.module, self.request.image_shape, self.request.excluded)
        return self.groups

    def _layer_costs(self) -> dict[str, Layer]:
        return layer_costs(self.module, self.config.target, self.request.image_shape, self.original)

    def _described(self, scores: Mapping[str, Tensor], share: float) -> list[Group]:
        return [
            Group(
                name=name,
                original=self.original[name],
                parts=tuple(_part(member) for member in group.members),
                scores=scores[name],
                sparsity=self._own_sparsity(group, share),
                blocks=group.blocks,
            )
            for name, group in self._groups().items()
        ]

    def _own_sparsity(self, group: ChannelGroup, share: float) -> float | None:
        fractions = self.request.fractions
        given = {layer: fractions[layer] for layer in sorted(group.producers()) if layer in fractions}
        if len(set(given.values())) > 1:
            text = ", ".join(f"{layer}={fraction}" for layer, fraction in given.items())
            raise ValueError(f"layers that share their channels must lose the same fraction, but got {text}.")
        return share * next(iter(given.values())) if given else None


def weight_slices(member: Member) -> Tensor:
    """Return what each entry of a member's side has of the layer's weight, [entries, ...]."""
    assert isinstance(member.layer, nn.Conv2d | nn.Linear)
    return member.layer.weight if member.output else input_slices(member.layer)


def by_channel(member: Member, values: Tensor) -> Tensor:
    """Return the sum over each channel's entries of ``values`` [entries of the side] -> [channels]."""
    return values[member.entries].sum(1)


def sum_over_members(group: ChannelGroup, value: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the sum over all weights that leave with a channel of ``value``, which maps [entries, n] -> [entries]."""
    total = torch.zeros(group.channels)
    for member in group.members:
        if isinstance(member.layer, nn.Conv2d | nn.Linear):
            total += by_channel(member, value(weight_slices(member).detach().flatten(1)))
    return total


def _part(member: Member) -> Part:
    groups = member.layer.groups if isinstance(member.layer, nn.Conv2d) and not member.output else 1
    return Part(member.name, member.output, member.entries.shape[1] / groups)
