"""Images spoiled by noise, blur or lack of contrast, each at three strengths, and the accuracy that is left.

Shapes: images uint8 [N, C, H, W]; pixels are scaled to [0, 1] while they are spoiled; N images, K classes.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = images_NCHW.shape[1]
    padded = F.pad(images_NCHW, (radius, radius, radius, radius), mode="reflect")
    across = F.conv2d(padded, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(across, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def contrast(images_NCHW: Tensor, strength: float, _generator: torch.Generator) -> Tensor:
    """Draw every pixel towards the mean of its image's channel; of its distance, 1 - ``strength`` is left."""
    mean_NC11 = images_NCHW.mean((2, 3), keepdim=True)
    return mean_NC11 + (1 - strength) * (images_NCHW - mean_NC11)


CORRUPTIONS: Mapping[str, tuple[Corruption, tuple[float, float, float]]] = {
    "noise": (noise, (0.05, 0.1, 0.2)),
    "blur": (blur, (0.02, 0.04, 0.06)),
    "contrast": (contrast, (0.4, 0.6, 0.8)),
}


def corrupt(images_u8: Tensor, kind: str, strength: float, generator: torch.Generator) -> Tensor:
    """Return the images spoiled, uint8 again.

    Args:
        images_u8: uint8 [N, C, H, W].
        kind: a key of CORRUPTIONS.
        strength: what it means stands with each of them.
        generator: of the noise.
    """
    spoiled = CORRUPTIONS[kind][0](images_u8.float() / 255, strength, generator)
    return (spoiled.clamp(0, 1) * 255).round().to(torch.uint8)


def measure_robustness(predict: Callable[[Tensor], Tensor], split: Split, *, images: int, seed: int) -> dict[str, Any]:
    """Return the accuracy on spoiled images; equal seeds spoil equal images alike, whatever the model.

    Args:
        predict: uint8 images [N, C, H, W] -> logits [N, K].
        split: the images; ``images`` of them are drawn by ``seed``.
        images: how many; all when there are fewer.
        seed: of the draw and of the noise.

    Returns:
        ``images``, ``seed``, ``clean`` (accuracy on the same images as they are), ``mean`` (over all
        corruptions) and ``corruptions``: by kind, ``strengths`` and ``accuracy`` [3].

    Source: Hendrycks and Dietterich 2019, section 3. Deviation: three kinds and three strengths of our own,
    relative to the range of pixels and the side of an image, so that they suit small images too.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen_N = torch.randperm(len(split), generator=generator)[:images]
    pixels_u8, labels_N = split.images[chosen_N], split.labels[chosen_N]
    corruptions = {}
    for kind, (_, strengths) in CORRUPTIONS.items():
        found = [accuracy(predict(corrupt(pixels_u8, kind, each, generator)), labels_N) for each in strengths]
        corruptions[kind] = {"strengths": list(strengths), "accuracy": found}
    every = [value for found in corruptions.values() for value in found["accuracy"]]
    return {
        "images": len(chosen_N),
        "seed": seed,
        "clean": accuracy(predict(pixels_u8), labels_N),
        "mean": sum(every) / len(every),
        "corruptions": corruptions,
    }
