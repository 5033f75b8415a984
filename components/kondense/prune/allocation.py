"""The number of channels that each group keeps, so that the network meets a budget.

Pure arithmetic: the cost of a network with other channel counts follows from the layers' shapes.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Cost = Callable[[Mapping[str, int]], float]
SAFE_MULTIPLE = 4  # of the widths of int8 layers
BISECTIONS = 40  # halve the ratio's interval below 1e-12, finer than any count resolves


@dataclasses.dataclass(frozen=True)
class Layer:
    """The cost of a layer: ``per_weight * outputs * inputs + per_output * outputs``.

    ``inputs`` is 1 if each output has one input only (depthwise convolutions, norms).
    """

    outputs: int
    inputs: int
    per_weight: float
    per_output: float


@dataclasses.dataclass(frozen=True)
class Part:
    """A layer's inputs or outputs that are removed with a group's channels, ``entries`` per channel.

    Inputs are counted per output: one input of a convolution in G groups counts 1 / G.
    """

    layer: str
    output: bool
    entries: float


@dataclasses.dataclass(frozen=True)
class Group:
    """Channels that can be removed; each removes its entries from every part.

    ``name`` is the layer that produces them, ``scores`` [channels] rank them; ``sparsity`` is the
    fraction of ``original`` channels to remove, None if the budget decides; counts are multiples of
    ``blocks``, whatever the rounding. A channel stands for ``width`` outputs of a layer: rounding is of these.
    """

    name: str
    original: int
    parts: tuple[Part, ...]
    scores: Tensor
    sparsity: float | None = None
    blocks: int = 1
    width: int = 1

    @property
    def channels(self) -> int:
        """The number of channels now."""
        return len(self.scores)

    def multiple(self, round_to: int) -> int:
        """Return the number that counts are multiples of."""
        return math.lcm(round_to // math.gcd(round_to, self.width), self.blocks)


def total_cost(layers: Mapping[str, Layer], groups: Sequence[Group], counts: Mapping[str, int]) -> float:
    """Return the cost of the layers if each group keeps ``counts[group.name]`` channels."""
    outputs = {name: float(layer.outputs) for name, layer in layers.items()}
    inputs = {name: float(layer.inputs) for name, layer in layers.items()}
    for group in groups:
        removed = group.channels - counts[group.name]
        for part in group.parts:
            if part.layer in layers:
                (outputs if part.output else inputs)[part.layer] -= removed * part.entries
    return sum(outputs[name] * (layer.per_weight * inputs[name] + layer.per_output) for name, layer in layers.items())


def allowed(count: float, channels: int, round_to: int) -> int:
    """Return the count nearest to ``count`` that a group of ``channels`` may keep.

    These are the multiples of ``round_to`` from ``round_to`` on, and all of the channels. All of them only if 4 divides
    them where it divides ``round_to``: onnxruntime 1.21 to 1.24 computes other int8 layers wrong on processors with
    AMX.
    """
    if channels <= round_to:
        return channels
    if channels % math.gcd(round_to, SAFE_MULTIPLE):
        largest = channels // round_to * round_to
        return min(max(round_to, int(count / round_to + 0.5) * round_to), largest)
    if count >= channels:
        return channels
    rounded = max(round_to, int(count / round_to + 0.5) * round_to)
    return channels if rounded >= channels or channels - count < abs(count - rounded) else rounded


def smallest_counts(groups: Sequence[Group], round_to: int) -> dict[str, int]:
    """Return the fewest channels that each group can keep; a group with a fixed sparsity keeps that."""
    return {group.name: _count(group, 1.0, math.inf, "layer", round_to) for group in groups}


def choose_counts(groups: Sequence[Group], cost: Cost, budget: float, *, scope: str, round_to: int) -> dict[str, int]:
    """Return the number of channels that each group keeps: as many as the budget allows.

    Args:
        groups: with scores.
        cost: maps counts to the cost of the network; monotonic in every count.
        budget: the largest cost.
        scope: ``layer`` removes the same fraction from each group, ``global`` the channels with the lowest
            scores relative to their group's mean.
        round_to: see ``allowed``.

    If the budget is below the cost of the smallest counts, they are returned.
    """
    ranked = torch.cat([_relative(group) for group in groups]).sort().values

    def counts_at(ratio: float) -> dict[str, int]:
        below = min(int(ratio * len(ranked)), len(ranked) - 1)
        return {group.name: _count(group, ratio, float(ranked[below]), scope, round_to) for group in groups}

    unpruned = {group.name: group.channels for group in groups}
    if cost(unpruned) <= budget:  # nothing is asked of the others
        return unpruned | smallest_counts([group for group in groups if group.sparsity is not None], round_to)
    low, high = 0.0, 1.0
    if cost(counts_at(low)) <= budget:
        return counts_at(low)
    if cost(counts_at(high)) > budget:
        return counts_at(high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(counts_at(middle)) <= budget else (middle, high)
    counts = counts_at(high)
    most = {group.name: _more(group, counts[group.name], round_to) for group in groups}
    restored = _restore(groups, counts, counts_at(low), cost, budget)
    return _fill(groups, restored, cost, most=most, budget=budget, round_to=round_to)


def _relative(group: Group) -> Tensor:
    return group.scores / group.scores.mean().clamp_min(torch.finfo(group.scores.dtype).tiny)


def _count(group: Group, ratio: float, threshold: float, scope: str, round_to: int) -> int:
    if group.sparsity is not None:
        count = (1.0 - group.sparsity) * group.original
    elif ratio >= 1.0:
        count = 0.0
    elif scope == "layer":
        count = (1.0 - ratio) * group.original
    else:
        count = float((_relative(group) >= threshold).sum())
    return allowed(count, group.channels, group.multiple(round_to))


def _more(group: Group, count: int, round_to: int) -> int:
    """Return the next larger count that a group may keep, or the largest."""
    multiple = group.multiple(round_to)
    following = count - count % multiple + multiple
    return following if following <= group.channels else allowed(group.channels, group.channels, multiple)


def _restore(
    groups: Sequence[Group], counts: dict[str, int], larger: Mapping[str, int], cost: Cost, budget: float
) -> dict[str, int]:
    """Restore channels that were removed only because several groups crossed a multiple at once; the best first."""
    for group in sorted(groups, key=lambda group: float(group.scores.mean()), reverse=True):
        attempt = counts | {group.name: larger[group.name]}
        if cost(attempt) <= budget:
            counts = attempt
    return counts


def _fill(
    groups: Sequence[Group],
    counts: dict[str, int],
    cost: Cost,
    *,
    most: Mapping[str, int],
    budget: float,
    round_to: int,
) -> dict[str, int]:
    """Restore channels that rounding removed, up to ``most``; the multiple with the best ratio of score to cost first.

    Without ``most``, the cheapest groups would get the remaining budget: with a budget of MACs the linear layers, which
    have most of the bytes.
    """
    worth = {group.name: _relative(group).sort(descending=True).values.cumsum(0).tolist() for group in groups}
    while True:
        spent, best, chosen = cost(counts), 0.0, counts
        for group in groups:
            now = counts[group.name]
            more = _more(group, now, round_to)
            if group.sparsity is not None or more <= now or more > most[group.name]:
                continue
            attempt = counts | {group.name: more}
            added = cost(attempt) - spent
            gain = (worth[group.name][more - 1] - worth[group.name][now - 1]) / max(added, 1e-9)
            if spent + added <= budget and gain > best:
                best, chosen = gain, attempt
        if chosen is counts:
            return counts
        counts = chosen
