"""Magnitude pruning: the smallest weights become zero. Source: Han et al. 2015, section 3."""

from collections.abc import Mapping

from torch import Tensor, nn

from kondense.prune.masks import masks
from kondense.prune.method import Method
from kondense.prune.request import Request


def prepare(module: nn.Module, request: Request) -> Method:
    """Return the method that zeroes the smallest weights (see ``masks.prepare``)."""
    return masks.prepare(module, request, score)


def score(module: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the absolute value of every weight, by name."""
    return {name: weight.detach().abs() for name, weight in weights.items()}
