"""Small networks of which each holds one construct that tools for compression stumble on, as factories by name.

Every factory takes ``classes``, ``channels`` and ``image_size`` and returns a network of a few thousand weights.
"""

from collections.abc import Callable

from torch import nn

from benchmarks.zoo.parts import (
    attentions,
    authors,
    blocks,
    branches,
    brought,
    convolutions,
    gates,
    habits,
    moves,
    norms,
    notebooks,
    outputs,
    published,
    reported,
    sequences,
    weights,
)

PARTS = (
    moves,
    branches,
    convolutions,
    gates,
    norms,
    sequences,
    weights,
    outputs,
    reported,
    brought,
    authors,
    attentions,
    blocks,
    habits,
    published,
    notebooks,
)
CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {}
for part in PARTS:
    assert not (twice := CONSTRUCTS.keys() & part.CONSTRUCTS.keys()), twice  # one would hide the other
    CONSTRUCTS |= part.CONSTRUCTS


def __getattr__(name: str) -> Callable[..., nn.Module]:
    """Make each construct a factory of the module, as ``package.module:factory`` needs."""
    if name not in CONSTRUCTS:
        raise AttributeError(name)
    make = CONSTRUCTS[name]

    def factory(classes: int, channels: int, image_size: int) -> nn.Module:
        return make(classes, channels, image_size)

    factory.__name__ = factory.__qualname__ = name
    return factory
