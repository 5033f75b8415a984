"""Unstructured pruning: single weights of convolutions and fully connected layers become zero.

A method is a score per weight; this module turns scores into masks. Biases and norms are never touched,
and every layer keeps at least its best weight.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from components.prune.layers import prunable_layers
from components.prune.method import Masks, Method
from components.prune.request import Request

Score = Callable[[Mapping[str, nn.Parameter]], dict[str, Tensor]]


def prepare(module: nn.Module, request: Request, score: Score) -> Method:
    """Return the method that zeroes the weights of ``module`` with the lowest scores.

    Args:
        module: pruned in place, step by step.
        request: how far.
        score: gives each weight's score in its weight's shape, by name; the lowest go first.

    Raises:
        ValueError: every layer is excluded.
    """
    layers = [name for name in prunable_layers(module) if name not in request.excluded]
    if not layers:
        raise ValueError("exclude must leave a layer to prune, but got all of them.")
    return MaskPruner(module, request, score, layers)


class MaskPruner(Method):
    """Prunes one network step by step; remembers what is pruned."""

    def __init__(self, module: nn.Module, request: Request, score: Score, layers: list[str]) -> None:
        self.module, self.request, self.score, self.layers = module, request, score, layers
        self.kept = request.masks(module)

    def step(self, share: float) -> Masks:
        """Prune a share of what is asked for; once pruned, a weight stays so."""
        weights = {f"{name}.weight": self.module.get_parameter(f"{name}.weight") for name in self.layers}
        scores = self.score(weights)
        for name in self.kept.keys() & scores.keys():
            scores[name] = scores[name].masked_fill(~self.kept[name], -math.inf)
        own = {f"{name}.weight": share * fraction for name, fraction in self.request.fractions.items()}
        chosen = choose_masks(scores, share * self.request.config.sparsity, self.request.config.scope, own)
        self.kept |= {name: mask & self.kept.get(name, mask) for name, mask in chosen.items()}
        with torch.no_grad():
            for name, mask in self.kept.items():
                self.module.get_parameter(name).masked_fill_(~mask, 0.0)
        return dict(self.kept)


def choose_masks(
    scores: Mapping[str, Tensor], sparsity: float, scope: str, own: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return boolean masks, True where a weight is kept.

    Args:
        scores: by weight name; the lowest are pruned.
        sparsity: fraction pruned, [0, 1), of all weights together (``global``) or of each (``layer``).
        scope: ``global`` or ``layer``.
        own: fractions of single weights, which take no part in the others' total.
    """
    masks = {name: _lowest_pruned({name: scores[name]}, own[name])[name] for name in scores if name in own}
    rest = {name: tensor for name, tensor in scores.items() if name not in own}
    if scope == "layer":
        return masks | {name: _lowest_pruned({name: tensor}, sparsity)[name] for name, tensor in rest.items()}
    return masks | _lowest_pruned(rest, sparsity)


def _lowest_pruned(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    if not scores:
        return {}
    flat = {name: tensor.detach().float().flatten().clone() for name, tensor in scores.items()}
    for tensor in flat.values():
        tensor[tensor.argmax()] = math.inf  # a layer without any weight would pass nothing on
    everything = torch.cat(list(flat.values()))
    pruned = min(round(sparsity * everything.numel()), everything.numel() - len(flat))
    mask = torch.ones(everything.numel(), dtype=torch.bool)
    mask[everything.argsort(stable=True)[:pruned]] = False
    parts = mask.split([tensor.numel() for tensor in flat.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(flat, parts, strict=True)}
