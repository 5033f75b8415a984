"""Random pruning, a baseline: zeroes weights uniformly at random."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.prune.context import Context

METHOD = {
    "name": "random",
    "kind": "weights",
    "summary": "zeroes weights uniformly at random",
    "function": "score",
}


def score(module: nn.Module, weights: Mapping[str, nn.Parameter], context: Context) -> dict[str, Tensor]:
    """Return a number in [0, 1) per weight, by name: the same at every call."""
    generator = torch.Generator().manual_seed(context.config.seed)
    return {
        name: torch.rand(weights[name].shape, generator=generator).to(weights[name].device) for name in sorted(weights)
    }
