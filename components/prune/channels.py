"""Structured pruning: channels are really removed, with everything in other layers that belongs to them.

torch-pruning's dependency graph says what belongs together: a group is a set of channels that only leave
as one, such as those of all convolutions that a shortcut adds up. A method is a score per channel of a
group; ``allocation`` says how many each group keeps, and this module removes the others.
"""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch_pruning.dependency import Dependency, DependencyGraph
from torch_pruning.dependency import Group as Dependencies

from components.artifacts.structure import ATTRIBUTES
from components.prune.allocation import Group, Layer, Part, choose_counts, smallest_counts, total_cost
from components.prune.costs import layer_costs
from components.prune.method import Masks, Method
from components.prune.request import Request

Score = Callable[[Dependencies], Tensor]  # of a group's channels, [channels]


def prepare(module: nn.Module, request: Request, score: Score) -> Method:
    """Return the method that removes the channels of ``module`` with the lowest scores.

    Args:
        module: pruned in place, step by step; its outputs are never among the channels.
        request: how far.
        score: gives the score of each channel of a group; the lowest go first.

    Raises:
        ValueError: no channel can be removed, or fewer than asked for.
    """
    pruner = ChannelPruner(module, request, score)
    pruner.check()
    return pruner


class ChannelPruner(Method):
    """Prunes one network step by step; remembers what it was at first."""

    def __init__(self, module: nn.Module, request: Request, score: Score) -> None:
        self.module, self.request, self.config, self.score = module, request, request.config, score
        groups = removable(trace(module, request), request)
        self.original = {name: channel_count(group) for name, group in groups.items()}
        self.whole = total_cost(self._layer_costs(), [], {})

    def check(self) -> None:
        """Raise ValueError unless the whole request can be met."""
        if not self.original:
            raise ValueError("a network must have channels to remove, but its outputs and exclude leave none.")
        groups = self._described(removable(trace(self.module, self.request), self.request), 1.0)
        least = total_cost(self._layer_costs(), groups, smallest_counts(groups, self.config.round_to))
        if least > (1.0 - self.config.sparsity) * self.whole:
            raise ValueError(
                f"sparsity must be at most {1.0 - least / self.whole:.4f} of the {self.config.target} of this network"
                f" (round_to {self.config.round_to}, layers {self.config.layers!r}, exclude {self.config.exclude!r}),"
                f" but got {self.config.sparsity}."
            )

    def step(self, share: float) -> Masks:
        """Remove a share of what is asked for."""
        graph = trace(self.module, self.request)
        groups = self._described(removable(graph, self.request), share)
        counts = choose_counts(
            groups,
            functools.partial(total_cost, self._layer_costs(), groups),
            (1.0 - share * self.config.sparsity) * self.whole,
            scope=self.config.scope,
            round_to=self.config.round_to,
        )
        for group in groups:
            remove(graph, self.module.get_submodule(group.name), group.scores, counts[group.name])
        return self.request.masks(self.module)

    def _layer_costs(self) -> dict[str, Layer]:
        return layer_costs(self.module, self.config.target, self.request.image_shape, self.original)

    def _described(self, dependencies: Mapping[str, Dependencies], share: float) -> list[Group]:
        return [
            Group(
                name=name,
                original=self.original[name],
                parts=tuple(_parts(group)),
                scores=self.score(group),
                sparsity=self._own_sparsity(group, share),
            )
            for name, group in dependencies.items()
        ]

    def _own_sparsity(self, group: Dependencies, share: float) -> float | None:
        given = {layer: self.request.fractions[layer] for layer in producers(group) if layer in self.request.fractions}
        if len(set(given.values())) > 1:
            text = ", ".join(f"{layer}={fraction}" for layer, fraction in given.items())
            raise ValueError(f"layers that share their channels must lose the same fraction, but got {text}.")
        return share * next(iter(given.values())) if given else None


def trace(module: nn.Module, request: Request) -> DependencyGraph:
    """Return the network's graph of dependencies between channels; the network ends in evaluation mode."""
    return DependencyGraph().build_dependency(module, torch.zeros(1, *request.image_shape), verbose=False)


def removable(graph: DependencyGraph, request: Request) -> dict[str, Dependencies]:
    """Return the groups whose channels can be removed, by the name of the layer they start from.

    Left out are the network's outputs, excluded layers, convolutions in several groups (depthwise ones are
    in), channels that a split spreads unevenly, and channels that pass a module whose shape the Model
    artifact cannot describe.
    """
    groups = {}
    for group in graph.get_all_groups():
        shrinks = all(_can_shrink(item.dep, item.idxs, channel_count(group)) for item in group)
        if shrinks and not producers(group) & request.excluded:
            groups[_layer_name(group[0].dep)] = group
    return groups


def channel_count(group: Dependencies) -> int:
    """Return how many channels a full group has."""
    return len(group[0].idxs)


def producers(group: Dependencies) -> set[str]:
    """Return the names of the convolutions and fully connected layers whose outputs are the group's channels."""
    return {
        _layer_name(item.dep)
        for item in group
        if shrinks_outputs(item.dep) and isinstance(item.dep.layer, nn.Conv2d | nn.Linear)
    }


def shrinks_outputs(dependency: Dependency) -> bool:
    """Tell whether a dependency takes outputs from its layer; layers with one input per output count as such."""
    return dependency.handler.__name__ == "prune_out_channels"


def remove(graph: DependencyGraph, root: nn.Module, scores: Tensor, count: int) -> None:
    """Remove the channels with the lowest scores, so that ``count`` are left."""
    lowest = scores.argsort(stable=True)[: len(scores) - count]
    if len(lowest):
        handler = graph.get_pruner_of_module(root).prune_out_channels
        graph.get_pruning_group(root, handler, sorted(lowest.tolist())).prune()


def _can_shrink(dependency: Dependency, indices: list[int], channels: int) -> bool:
    layer = dependency.layer
    if len(indices) % channels or (shrinks_outputs(dependency) and not dependency.target.outputs):
        return False
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return layer.groups == layer.in_channels == layer.out_channels
    return isinstance(layer, tuple(ATTRIBUTES)) or not (isinstance(layer, nn.Parameter) or list(layer.parameters()))


def _parts(group: Dependencies) -> list[Part]:
    return [
        Part(_layer_name(item.dep), shrinks_outputs(item.dep), len(item.idxs) // channel_count(group))
        for item in group
        if isinstance(item.dep.layer, tuple(ATTRIBUTES))
    ]


def _layer_name(dependency: Dependency) -> str:
    return dependency.target._name
