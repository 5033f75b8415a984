"""Accuracy on images corrupted by noise, blur or low contrast, each at three strengths.

Shapes: images uint8 [N, C, H, W], corrupted as pixels in [0, 1]; N images, K classes.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kondense.data.at_once import at_once
from kondense.data.dataset import Split
from kondense.measuring.accuracy import accuracy

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]


def noise(images_NCHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise whose standard deviation is ``strength``."""
    return images_NCHW + strength * torch.randn(images_NCHW.shape, generator=generator)


def blur(images_NCHW: Tensor, strength: float, _generator: torch.Generator) -> Tensor:
    """Blur by a Gaussian whose standard deviation is ``strength`` times the image's side; edges are mirrored."""
    sigma = strength * images_NCHW.shape[-1]
    radius = min(math.ceil(3 * sigma), min(images_NCHW.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    down_HH, across_WW = (_mirrored(side, offsets, kernel) for side in images_NCHW.shape[-2:])
    return down_HH @ images_NCHW @ across_WW.T


def _mirrored(side: int, offsets: Tensor, kernel: Tensor) -> Tensor:
    """Return the matrix [side, side] that convolves rows of pixels with a kernel; as products they take less time."""
    index = (torch.arange(side).unsqueeze(1) + offsets).abs()
    index = side - 1 - (side - 1 - index).abs()
    return torch.zeros(side, side).scatter_add_(1, index, kernel.expand(side, -1))


def contrast(images_NCHW: Tensor, strength: float, _generator: torch.Generator) -> Tensor:
    """Scale the distance of every pixel from the mean of its image's channel by 1 - ``strength``."""
    mean_NC11 = images_NCHW.mean((2, 3), keepdim=True)
    return mean_NC11 + (1 - strength) * (images_NCHW - mean_NC11)


CORRUPTIONS: Mapping[str, tuple[Corruption, tuple[float, float, float]]] = {
    "noise": (noise, (0.05, 0.1, 0.2)),
    "blur": (blur, (0.02, 0.04, 0.06)),
    "contrast": (contrast, (0.4, 0.6, 0.8)),
}


def corrupt(images_u8: Tensor, kind: str, strength: float, generator: torch.Generator) -> Tensor:
    """Return the corrupted images, uint8.

    Args:
        images_u8: uint8 [N, C, H, W].
        kind: a key of CORRUPTIONS.
        strength: see the function of the corruption.
        generator: gives the noise.
    """
    corrupted = CORRUPTIONS[kind][0](images_u8.float() / 255, strength, generator)
    return (corrupted.clamp(0, 1) * 255).round().to(torch.uint8)


def measure_robustness(predict: Callable[[Tensor], Tensor], split: Split, *, images: int, seed: int) -> dict[str, Any]:
    """Return the accuracy on corrupted images; equal seeds give equal corruptions, whatever the model.

    Args:
        predict: uint8 images [N, C, H, W] -> logits [N, K].
        split: the images.
        images: number of images to draw; all if there are fewer.
        seed: seed of the draw and of the noise.

    Returns:
        ``images``, ``seed``, ``clean`` (accuracy on the same images without corruption), ``mean`` (over all
        corruptions) and ``corruptions``: by kind, ``strengths`` and ``accuracy`` [3].

    Source: Hendrycks and Dietterich 2019, section 3. Deviation: three kinds with three other strengths,
    relative to the range of pixels and the side of an image, so that they suit small images.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen_N = torch.randperm(len(split), generator=generator)[:images]
    pixels_u8, labels_N = split.images[chosen_N], split.labels[chosen_N]
    corruptions, every = {}, []
    size = at_once(pixels_u8.shape[1:])
    for kind, (_, strengths) in CORRUPTIONS.items():
        values = []
        for strength in strengths:
            parts = (corrupt(part_u8, kind, strength, generator) for part_u8 in pixels_u8.split(size))
            values.append(accuracy(torch.cat([predict(part_u8) for part_u8 in parts]), labels_N))
        corruptions[kind] = {"strengths": list(strengths), "accuracy": values}
        every += values
    return {
        "images": len(chosen_N),
        "seed": seed,
        "clean": accuracy(predict(pixels_u8), labels_N),
        "mean": sum(every) / len(every),
        "corruptions": corruptions,
    }
