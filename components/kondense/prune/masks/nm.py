"""n:m pruning: keeps the n largest of every m consecutive weights of an output (2:4 for sparse tensor cores).

    Linear  [O, I]         -> groups along I
    Conv2d  [O, I, kH, kW] -> groups along I at each (kH, kW): a convolution is the product of a matrix
                              [O, kH * kW * I], inputs innermost, with the image's patches

Source: Mishra et al. 2021, sections 2 and 4. Deviation: gradual, m - 1 of m first, then m - 2, ...
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kondense.errors import InputError
from kondense.prune.context import Context
from kondense.prune.fractions import parse_pattern
from kondense.prune.masks.magnitude import score
from kondense.prune.masks.masks import MaskPruner, Score, maskable_layers
from kondense.prune.pruner import Masks, Pruner

METHOD = {
    "name": "nm",
    "kind": "weights",
    "summary": "keeps the n largest of every m consecutive weights",
    "function": "prepare",
    "fixed_sparsity": True,
}


def prepare(module: nn.Module, context: Context) -> Pruner:
    """Return the method that keeps the n largest of every m weights.

    Layers are left out whose number of inputs m does not divide, such as the first of a network and depthwise ones.

    Raises:
        InputError: m divides the inputs of no layer, or every layer is excluded.
    """
    layers = maskable_layers(module, context)
    _, size = parse_pattern(context.config.pattern)
    inputs = {name: module.get_parameter(f"{name}.weight").shape[1] for name in layers}
    left_out = {name: count for name, count in inputs.items() if count % size}
    layers = [name for name in layers if name not in left_out]
    if not layers:
        text = ", ".join(f"{name} has {count}" for name, count in left_out.items())
        raise InputError(
            f"pattern {context.config.pattern} needs layers whose number of inputs is a multiple of {size}, but {text}."
        )
    for name in sorted(context.fractions):
        raise InputError(
            f"layers must be empty with method nm, whose pattern gives the sparsity, but it names {name!r}."
        )
    return PatternPruner(module, context, score, layers, left_out)


class PatternPruner(MaskPruner):
    """Prunes one network to the pattern, an entry of each group at a time.

    Attributes:
        left_out: the inputs of the layers that the pattern does not fit, by name.
    """

    def __init__(
        self, module: nn.Module, context: Context, score: Score, layers: list[str], left_out: Mapping[str, int]
    ) -> None:
        super().__init__(module, context, score, layers)
        self.left_out = {
            name: f"the number of its inputs, {count}, is no multiple of {parse_pattern(context.config.pattern)[1]}"
            for name, count in left_out.items()
        }

    def notes(self) -> list[str]:
        """Return the layers that the pattern does not fit."""
        return [f"{name} keeps all of its weights: {reason}" for name, reason in self.left_out.items()]

    def details(self) -> dict[str, Any]:
        """Return the layers that the pattern does not fit, with reasons."""
        return super().details() | ({"whole": self.left_out} if self.left_out else {})

    def sparsity(self, requested: float) -> float:
        """Return the sparsity of the pattern."""
        keep, size = parse_pattern(self.context.config.pattern)
        return 1.0 - keep / size

    def masks(self, module: nn.Module, kept: Mapping[str, Tensor], share: float) -> Masks:
        """Return the masks of a share of the pattern, which prune no weight back in that ``kept`` has pruned."""
        keep, size = parse_pattern(self.context.config.pattern)
        left = size - int(share * (size - keep) + 1e-9)
        masks = dict(kept)
        for name, scores in score(module, self.weights(module)).items():
            mask = kept.get(name, torch.ones_like(scores, dtype=torch.bool))
            # A weight that an earlier stage pruned counts as one of the smallest of its group.
            masks[name] = largest_of_groups(scores.masked_fill(~mask, -1.0), left, size) & mask
        return masks


def largest_of_groups(scores: Tensor, keep: int, size: int) -> Tensor:
    """Mark the ``keep`` largest of every ``size`` consecutive inputs; the first of equal ones.

    Args:
        scores: [O, I] or [O, I, kH, kW]; ``size`` divides I.
        keep: number of entries to keep in each group.
        size: entries of a group.

    Returns:
        Booleans in the shape of ``scores``.
    """
    inner = scores.movedim(1, -1)  # [O, kH, kW, I]
    groups = inner.reshape(-1, size)
    order = groups.argsort(dim=1, descending=True, stable=True)[:, :keep]
    marked = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order, value=True)
    return marked.view(inner.shape).movedim(-1, 1)
