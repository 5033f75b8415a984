"""Scales and zero points of the integer grids.

Shapes: weight [O, I, ...] -> scale [O] (per channel) or [1] (per tensor).
"""

import torch
from torch import Tensor

from kondense.artifacts.quantized import ActivationQuantizer, QuantizedTensor

# Its inverse is finite in float32. The floor of torch.ao's observers, 1.2e-7, makes zeros of a layer whose weights or
# inputs are all below it, as small scales in front of a norm make them.
SMALLEST_SCALE = 2.0**-120
SMALLEST_PRODUCT = 2.0**-124  # the scale of an accumulator, the product of two, stays a normal float32
SCALE_OF_ZEROS = torch.finfo(torch.float32).eps  # as torch.ao's: the bias of such a channel is hardly rounded


def activation_quantizer(low: float, high: float, *, bits: int = 8) -> ActivationQuantizer:
    """Return the asymmetric grid over [low, high], widened to include zero.

    Source: torch.ao.quantization.MinMaxObserver (quint8, per_tensor_affine), in the same float32 steps, but for ranges
    so small that its floor of the scale holds.
    """
    levels = 2**bits - 1
    low_f32 = torch.tensor(min(low, 0.0), dtype=torch.float32)
    high_f32 = torch.tensor(max(high, 0.0), dtype=torch.float32)
    scale = _scale(high_f32 - low_f32, levels)
    zero_point = torch.clamp(-torch.round(low_f32 / scale), 0, levels)
    return ActivationQuantizer(scale=float(scale), zero_point=int(zero_point), bits=bits)


def symmetric_quantizer(low: float, high: float, *, bits: int = 8) -> ActivationQuantizer:
    """Return the grid with zero in its middle that covers ``low`` and ``high``.

    Source: torch.ao.quantization.MinMaxObserver (quint8, per_tensor_symmetric).
    """
    half = (2**bits - 1) / 2
    bound_f32 = torch.tensor(max(-low, high, 0.0), dtype=torch.float32)
    scale = _scale(bound_f32, half)
    return ActivationQuantizer(scale=float(scale), zero_point=2 ** (bits - 1), bits=bits)


def weight_limit(bits: int) -> int:
    """Return the largest integer of the symmetric grid, 2^(bits-1) - 1."""
    return int(2 ** (bits - 1) - 1)


def rows(weight: Tensor, granularity: str) -> Tensor:
    """Return ``weight`` as one row per scale: [O, I * ...] per channel, [1, O * I * ...] per tensor."""
    return weight.detach().float().reshape(len(weight) if granularity == "channel" else 1, -1)


def largest_scale(weight: Tensor, bits: int, granularity: str) -> Tensor:
    """Return the scale at which no weight is clipped, [O] or [1].

    Source: torch.ao.quantization.PerChannelMinMaxObserver (per_channel_symmetric, quant_min = -quant_max), but for its
    floor.
    """
    return _scale(rows(weight, granularity).abs().amax(1), weight_limit(bits))


def _scale(span: Tensor, levels: float) -> Tensor:
    """Return the scale of values that span so much in so many steps."""
    return torch.where(span > 0, torch.clamp(span / levels, min=SMALLEST_SCALE), SCALE_OF_ZEROS)


def round_to_grid(weight: Tensor, scale: Tensor, bits: int) -> QuantizedTensor:
    """Return ``weight`` on the symmetric grid of ``scale`` ([O] or [1]); values outside are clipped."""
    limit = weight_limit(bits)
    shape = (-1, *[1] * (weight.ndim - 1))
    integers = torch.round(weight.detach().float() / scale.reshape(shape)).clamp(-limit, limit)
    return QuantizedTensor(integers.to(torch.int8), scale.float(), bits)
