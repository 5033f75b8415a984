"""How far a network can be pruned, known without data from its layers alone."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from kondense.artifacts.structure import RECURRENT
from kondense.channels.dependencies import ChannelGroup, Dependencies, Member, find_dependencies
from kondense.channels.groups import parts_of
from kondense.channels.hidden_units import reads
from kondense.errors import InputError
from kondense.networks.layers import matching, parse_names
from kondense.prune.allocation import Group, Layer, Part, smallest_counts, total_cost
from kondense.prune.config import PruneConfig
from kondense.prune.context import resolve_fractions
from kondense.prune.costs import layer_costs
from kondense.prune.fractions import parse_fractions
from kondense.prune.masks.masks import largest_reachable, layer_sizes, maskable

LIMITS = 5  # layers named
OUTPUTS = "its outputs are the network's"
OVER = "a statistic is taken over its channels, and the others suffice"
JOINED = "a number of the network's ties its channels to those of other layers, and the others suffice"
PLAIN_SHARE = 0.75  # of what the others allow at most; beyond it they would lose too many


@dataclasses.dataclass(frozen=True)
class Possible:
    """The most that channel pruning can remove from a network.

    Attributes:
        fraction: of ``target``, [0, 1).
        target: what the fraction is of, such as ``macs``; ``macs`` if latencies are the target.
        limits: the layers that most of the rest is in, and why they keep it.
        whole: why the outputs of a layer must stay, by its name; without excluded layers and the network's outputs.
    """

    fraction: float
    target: str
    limits: Mapping[str, str]
    whole: Mapping[str, str]

    def __str__(self) -> str:
        text = f"{self.fraction:.4f} of the {self.target} can be removed"
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.limits.items())
        return f"{text}, limited by {reasons}" if reasons else text


def reduction(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    config: PruneConfig,
    *,
    costs_of: tuple[int, int, int] | None = None,
) -> Possible:
    """Return the most that a channel method can remove from ``module`` under ``config``; takes seconds, needs no data.

    Args:
        module: the network; it ends in evaluation mode.
        image_shape: shape of one image, (C, H, W).
        config: gives ``target``, ``round_to``, ``layers`` and ``exclude``; its ``sparsity`` is not looked at.
        costs_of: shape of the images whose costs count, if the network is traced on smaller ones.

    Raises:
        InputError: the network does not run on such images, or ``layers`` or ``exclude`` name no layer.
    """
    excluded = matching(module, "exclude", parse_names(config.exclude))
    fractions = resolve_fractions(module, parse_fractions(config.layers))
    found = find_dependencies(module, image_shape, excluded)
    groups = _described(found, fractions)
    target = "macs" if config.target == "latency" else config.target
    costs = layer_costs(module, target, costs_of or image_shape, found.groups)
    counts = smallest_counts(groups, config.round_to)
    return Possible(
        _removed(costs, groups, counts),
        target,
        limits(costs, groups, counts, found=found, excluded=excluded),
        kept_whole(found),
    )


def offered(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    config: PruneConfig,
    found: Dependencies,
    fractions: Mapping[str, float],
) -> Dependencies:
    """Return what to choose from: some channels only where there are too few others.

    Without channels over which a statistic is taken, a norm computes something else for all others; channels that only
    a number ties together go in sets that nothing else suggests. Both cost more accuracy for the same MACs.

    Args:
        module: the network.
        image_shape: shape of one image, (C, H, W).
        config: gives ``sparsity``, ``target`` and ``round_to``.
        found: all that can be removed.
        fractions: to remove, by layer; the groups of layers that ``config.layers`` names are always returned.
    """
    named = parse_fractions(config.layers).keys()
    asked = {name for name, group in found.groups.items() if group.producers() & named}
    plain = {name: group for name, group in found.groups.items() if not _comes_last(group) or name in asked}
    if len(plain) == len(found.groups):
        return found
    target = "macs" if config.target == "latency" else config.target
    costs = layer_costs(module, target, image_shape, plain)
    groups = _described(dataclasses.replace(found, groups=plain), fractions)
    settled = bool(groups) and all(group.sparsity is not None for group in groups)
    most = _removed(costs, groups, smallest_counts(groups, config.round_to))
    if config.sparsity > PLAIN_SHARE * most and not settled:
        return found
    others = {
        name: JOINED if group.joined and not group.statistics else OVER
        for key, group in found.groups.items()
        if key not in plain
        for name in group.producers()
    }
    return Dependencies(plain, found.whole | others)


def _comes_last(group: ChannelGroup) -> bool:
    """Return whether the channels of a group are removed only where the others do not suffice."""
    return group.statistics or group.joined


def _described(found: Dependencies, fractions: Mapping[str, float]) -> list[Group]:
    return [
        describe(group, torch.zeros(group.channels), fraction=fixed_fraction(group, fractions))
        for group in found.groups.values()
    ]


def _removed(costs: Mapping[str, Layer], groups: Sequence[Group], counts: Mapping[str, int]) -> float:
    """Return the fraction of the cost that is gone at the ``counts``."""
    total = total_cost(costs, [], {})
    return 1.0 - total_cost(costs, groups, counts) / total if total else 0.0


def zeroing(module: nn.Module, config: PruneConfig) -> float:
    """Return the largest sparsity of a method that zeroes weights of ``module`` under ``config``, [0, 1].

    Args:
        module: the network.
        config: gives ``scope``, ``granularity``, ``layers`` and ``exclude``; its ``sparsity`` is not looked at.

    Raises:
        InputError: ``layers`` or ``exclude`` name no layer, or no layer is left.
    """
    excluded = matching(module, "exclude", parse_names(config.exclude))
    fractions = resolve_fractions(module, parse_fractions(config.layers))
    layers = maskable(module, excluded, config.granularity)
    free = [name for name in layers if name not in fractions]
    return largest_reachable(layer_sizes(module, free, config.granularity), config.comparison)


def limits(
    costs: Mapping[str, Layer],
    groups: Sequence[Group],
    counts: Mapping[str, int],
    *,
    found: Dependencies,
    excluded: Collection[str],
) -> dict[str, str]:
    """Return the layers that most of the cost is left in at the smallest ``counts``, with why they keep their outputs.

    Layers that keep only what every layer keeps, its smallest count, are not named.
    """
    rest = {name: total_cost({name: cost}, groups, counts) for name, cost in costs.items()}
    group_of = {producer: group for group in groups for producer in found.groups[group.name].producers()}
    reasons = {}
    for name in sorted(rest, key=lambda name: -rest[name]):
        group = group_of.get(name)
        if name in excluded:
            reasons[name] = "excluded"
        elif name in found.whole and found.whole[name] != OUTPUTS:
            reasons[name] = found.whole[name]
        elif group is not None and counts[group.name] == group.channels:
            reasons[name] = f"{group.channels} channels are too few to prune"
        if len(reasons) == LIMITS:
            break
    return reasons


def kept_whole(found: Dependencies) -> dict[str, str]:
    """Return why layers keep all of their outputs, by name, but for the network's outputs, which always stay."""
    return {name: reason for name, reason in found.whole.items() if reason != OUTPUTS}


def describe(group: ChannelGroup, scores: torch.Tensor, *, fraction: float | None = None, original: int = 0) -> Group:
    """Return a group in the form that the allocation needs.

    Args:
        group: the group.
        scores: [channels].
        fraction: to remove, None if the budget decides.
        original: channels before pruning; 0: those now.
    """
    return Group(
        name=group.name,
        original=original or group.channels,
        parts=tuple(part for member in group.members for part in _parts(member)),
        scores=scores,
        sparsity=fraction,
        blocks=group.blocks,
        width=group.width,
    )


def fixed_fraction(group: ChannelGroup, fractions: Mapping[str, float], share: float = 1.0) -> float | None:
    """Return the fraction that ``fractions`` ask to remove from the channels of a group, times ``share``, if any.

    Raises:
        InputError: they ask for different ones of layers that share channels.
    """
    requested = {layer: fractions[layer] for layer in sorted(group.producers()) if layer in fractions}
    if len(set(requested.values())) > 1:
        text = ", ".join(f"{layer}={fraction}" for layer, fraction in requested.items())
        raise InputError(f"layers that share channels must have the same fraction, but got {text}.")
    return share * next(iter(requested.values())) if requested else None


def _parts(member: Member) -> list[Part]:
    groups = 1 if member.output else parts_of(member.layer)
    part = Part(member.name, member.output, member.entries.shape[1] / groups)
    if member.output and isinstance(member.layer, RECURRENT):
        return [part, Part(member.name, False, part.entries * reads(member.layer))]
    return [part]
