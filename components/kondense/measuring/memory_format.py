"""The memory format in which a network runs: contiguous, or channels_last.

Shapes: images [B, C, H, W].
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from kondense.networks.outputs import logits_of

IMAGES = 4  # dimensions of tensors that have a memory format
ROUNDING, TINY = 0.01, 1e-6
LARGE_IMAGE = 2**14  # values, from which convolutions are faster in channels_last: half of ResNet-18's time


def place_in_format(module: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    """Put the weights of two-dimensional convolutions into a memory format, and return the network.

    ``nn.Module.to`` would put those of three-dimensional ones into it too, which have none of these formats.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == IMAGES:
            tensor.data = tensor.data.to(memory_format=memory_format)
    return module


def taken_format(module: nn.Module, images_BCHW: Tensor) -> torch.memory_format:
    """Return the memory format of ``images_BCHW`` if a network in evaluation mode takes it, else contiguous."""
    if images_BCHW.is_contiguous():
        return torch.contiguous_format
    two_BCHW = images_BCHW[:2].contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = logits_of(module(two_BCHW.contiguous()))
        try:
            found = logits_of(module(two_BCHW))
        except RuntimeError:  # view
            return torch.contiguous_format
    return torch.channels_last if close(found, expected) else torch.contiguous_format


@contextlib.contextmanager
def fastest_format(module: nn.Module, images_BCHW: Tensor) -> Iterator[torch.memory_format]:
    """Yield the memory format in which the network runs images like these fastest; its weights have it in the block.

    Args:
        module: the network, on the CPU and in evaluation mode.
        images_BCHW: two images, to try channels_last with where images are large.
    """
    before = memory_format_of(module)
    memory_format = before
    try:
        if before is torch.contiguous_format and images_BCHW.ndim == IMAGES and images_BCHW[0].numel() >= LARGE_IMAGE:
            place_in_format(module, torch.channels_last)
            with contextlib.suppress(RuntimeError):  # a view of weights
                memory_format = taken_format(module, images_BCHW[:2].contiguous(memory_format=torch.channels_last))
            place_in_format(module, memory_format)
        yield memory_format
    finally:
        place_in_format(module, before)


def memory_format_of(module: nn.Module) -> torch.memory_format:
    """Return channels_last if a convolution's weight is in it, else contiguous_format."""
    for weight in module.parameters():
        if weight.ndim == IMAGES and not weight.is_contiguous():
            return torch.channels_last
    return torch.contiguous_format


def close(found: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors differ by rounding only; TF32 on GPUs rounds to 10 bits."""
    if not torch.isfinite(expected).all():
        return True  # training reports it
    return float((found - expected).norm()) <= ROUNDING * float(expected.norm()) + TINY
