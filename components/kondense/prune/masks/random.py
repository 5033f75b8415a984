"""Random pruning: the honest baseline, weights go by lot."""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.prune.masks import masks
from kondense.prune.method import Method
from kondense.prune.request import Request


def prepare(module: nn.Module, request: Request) -> Method:
    """Return the method that zeroes weights by lot (see ``masks.prepare``)."""
    return masks.prepare(module, request, functools.partial(score, seed=request.config.seed))


def score(module: nn.Module, weights: Mapping[str, nn.Parameter], seed: int) -> dict[str, Tensor]:
    """Return a number in [0, 1) per weight, by name: the same ones at every call."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(weights[name].shape, generator=generator).to(weights[name].device) for name in sorted(weights)
    }
