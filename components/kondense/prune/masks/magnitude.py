"""Magnitude pruning: zeroes the smallest weights. Source: Han et al. 2015, section 3."""

from collections.abc import Mapping

from torch import Tensor, nn

METHOD = {
    "name": "magnitude",
    "kind": "weights",
    "summary": "zeroes the smallest weights",
    "function": "score",
    "scope": "lamp",
    "layer_adaptive": True,
}


def score(module: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the absolute value of every weight, by name."""
    return {name: weight.detach().abs() for name, weight in weights.items()}
