"""The device, the arithmetic and the memory format of training."""

import torch
from torch import Tensor, nn

from kondense.data.dataset import Split
from kondense.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return the device; ``auto``: a GPU if there is one.

    Raises:
        InputError: ``cuda`` is requested and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device must be available, but got cuda and torch finds no GPU; use cpu or auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic; ``auto``: bfloat16 on GPUs that support it, else float32.

    Raises:
        InputError: float16 on the CPU, where it underflows and is slow.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name == "float16" and device.type == "cpu":
        raise InputError("precision must be float32 or bfloat16 on a CPU, but got float16.")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def choose_memory_format(module: nn.Module) -> torch.memory_format:
    """Return channels_last, which is faster for convolutions, unless a layer's backward is broken in it.

    torch 2.14.1 on CPU corrupts the heap in the backward of a strided 1x1 convolution with fewer than 8
    input channels in channels_last; channel pruning makes such layers.
    """
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    hazard = any(
        layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels // layer.groups < 8
        for layer in convolutions
    )
    return torch.channels_last if convolutions and not hazard else torch.contiguous_format


def place(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images and labels on the device when they fit in half of its free memory, else on the CPU."""
    if device.type == "cuda" and split.images.numel() > torch.cuda.mem_get_info(device)[0] // 2:
        return split.images, split.labels
    return split.images.to(device), split.labels.to(device)
