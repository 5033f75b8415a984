"""Smaller images on which a network does the same, so that most of a preflight is tried on a fraction of the pixels.

A convolutional network that ends in a global mean runs on images of any size. What can be pruned, quantized or
distilled is then the same, at a sixteenth of the time.

Shapes: C channels, H height, W width.
"""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kondense.artifacts.equivalence import evaluating

Shape = tuple[int, int, int]
LEAST_SIDE = 48  # in pixels: deep networks halve their images five times
HALVINGS = 2
IMAGES = 2

Call = tuple[str, int]  # name of a module, number of the axes of its output


def smaller_shape(module: nn.Module, shape: Shape) -> Shape:
    """Return the smallest shape on which a network calls the same modules in the same order; at last ``shape``.

    Args:
        module: the network, which takes images of ``shape``.
        shape: of one image, [C, H, W]; its sides are halved twice at most, to no less than 48 pixels.
    """
    channels, height, width = shape
    tried = [(channels, height >> halved, width >> halved) for halved in range(HALVINGS, 0, -1)]
    tried = [each for each in tried if min(each[1:]) >= LEAST_SIDE]
    if not tried:
        return shape
    wanted = called(module, shape)
    if wanted is None:
        return shape
    return next((each for each in tried if called(module, each) == wanted), shape)


def times_slower(module: nn.Module, shape: Shape, small: Shape) -> float:
    """Return how many times the prediction of images of ``shape`` takes as long as that of ``small`` ones."""
    seconds = []
    for each in (shape, small):
        images = torch.zeros(IMAGES, *each)
        with torch.inference_mode(), evaluating(module):
            module(images)
            began = time.perf_counter()
            module(images)
            seconds.append(time.perf_counter() - began)
    return max(1.0, seconds[0] / max(seconds[1], 1e-9))


def called(module: nn.Module, shape: Shape) -> Sequence[Call] | None:
    """Return the modules that a network calls on images of a shape, in order; None if it does not take them."""
    calls: list[Call] = []

    def note(name: str, output: Any) -> None:
        calls.append((name, output.ndim if isinstance(output, torch.Tensor) else 0))

    hooks = [
        part.register_forward_hook(lambda _part, _inputs, output, name=name: note(name, output))
        for name, part in module.named_modules()
    ]
    try:
        with torch.inference_mode(), evaluating(module), contextlib.suppress(Exception):  # of the network's own code
            module(torch.zeros(IMAGES, *shape))
            return calls
        return None
    finally:
        for hook in hooks:
            hook.remove()
