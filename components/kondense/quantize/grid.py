"""Scales and zero points of the integer grids.

Shapes: weight [O, I, ...] -> scale [O] (per channel) or [1] (per tensor).
"""

import torch
from torch import Tensor

from kondense.artifacts.quantized import ActivationQuantizer, QuantizedTensor

SMALLEST_SCALE = torch.finfo(torch.float32).eps  # as in torch.ao's observers


def activation_quantizer(low: float, high: float, *, bits: int = 8) -> ActivationQuantizer:
    """Return the asymmetric grid over [low, high], widened to include zero.

    Source: torch.ao.quantization.MinMaxObserver (quint8, per_tensor_affine), in the same float32 steps.
    """
    levels = 2**bits - 1
    low_f32 = torch.tensor(min(low, 0.0), dtype=torch.float32)
    high_f32 = torch.tensor(max(high, 0.0), dtype=torch.float32)
    scale = torch.clamp((high_f32 - low_f32) / float(levels), min=SMALLEST_SCALE)
    zero_point = torch.clamp(-torch.round(low_f32 / scale), 0, levels)
    return ActivationQuantizer(scale=float(scale), zero_point=int(zero_point), bits=bits)


def symmetric_quantizer(low: float, high: float, *, bits: int = 8) -> ActivationQuantizer:
    """Return the grid with zero in its middle that covers ``low`` and ``high``.

    Source: torch.ao.quantization.MinMaxObserver (quint8, per_tensor_symmetric).
    """
    half = (2**bits - 1) / 2
    bound_f32 = torch.tensor(max(-low, high, 0.0), dtype=torch.float32)
    scale = torch.clamp(bound_f32 / half, min=SMALLEST_SCALE)
    return ActivationQuantizer(scale=float(scale), zero_point=2 ** (bits - 1), bits=bits)


def weight_limit(bits: int) -> int:
    """Return the largest integer of the symmetric grid, 2^(bits-1) - 1."""
    return int(2 ** (bits - 1) - 1)


def rows(weight: Tensor, granularity: str) -> Tensor:
    """Return ``weight`` as one row per scale: [O, I * ...] per channel, [1, O * I * ...] per tensor."""
    return weight.detach().float().reshape(len(weight) if granularity == "channel" else 1, -1)


def largest_scale(weight: Tensor, bits: int, granularity: str) -> Tensor:
    """Return the scale at which no weight is clipped, [O] or [1].

    Source: torch.ao.quantization.PerChannelMinMaxObserver (per_channel_symmetric, quant_min = -quant_max).
    """
    return torch.clamp(rows(weight, granularity).abs().amax(1) / weight_limit(bits), min=SMALLEST_SCALE)


def round_to_grid(weight: Tensor, scale: Tensor, bits: int) -> QuantizedTensor:
    """Return ``weight`` on the symmetric grid of ``scale`` ([O] or [1]); values outside are clipped."""
    limit = weight_limit(bits)
    shape = (-1, *[1] * (weight.ndim - 1))
    integers = torch.round(weight.detach().float() / scale.reshape(shape)).clamp(-limit, limit)
    return QuantizedTensor(integers.to(torch.int8), scale.float(), bits)
