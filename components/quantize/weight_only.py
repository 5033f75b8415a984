"""Weight-only quantization: weights of 2 to 8 bits, activations in float.

Shapes: weight [O, I, ...] -> scale [O] or [1]; R scales.
"""

import copy
import dataclasses

import torch
from torch import Tensor

from components.artifacts.model import Model
from components.artifacts.quantized import QuantizedTensor
from components.quantize.grid import SMALLEST_SCALE, largest_scale, round_to_grid, rows, weight_limit
from components.quantize.layers import quantizable_layers

FRACTIONS = 96  # scales tried, from a quarter of the one that clips nothing up to it


def quantize(model: Model, *, bits: int = 4, granularity: str = "channel") -> Model:
    """Return ``model`` with the weights of its convolutions and linear layers on uniform symmetric grids.

    Zeros stay zeros, so that a pruned network stays as sparse as it is.

    Args:
        model: a float model; it is left as it was.
        bits: of a weight, 2 to 8.
        granularity: ``channel`` or ``tensor``.

    Raises:
        ValueError: the model is quantized already.
    """
    if model.quantized or model.activations:
        raise ValueError("a model must be quantized once, but this one is quantized already.")
    module = copy.deepcopy(model.module).eval()
    quantized = {}
    for name in quantizable_layers(module):
        weight = module.get_parameter(f"{name}.weight")
        quantized[f"{name}.weight"] = quantize_weight(weight, bits=bits, granularity=granularity)
        with torch.no_grad():
            weight.copy_(quantized[f"{name}.weight"].dequantize())
    return dataclasses.replace(model, module=module, quantized=quantized)


def quantize_weight(weight: Tensor, *, bits: int, granularity: str) -> QuantizedTensor:
    """Return ``weight`` on the grid whose scale has the least squared error among those tried.

    Scales have 8 significant bits (bfloat16), so that they cost two bytes each, not four.
    """
    values_RM = rows(weight, granularity)
    largest_R = largest_scale(weight, bits, granularity)
    best_R = torch.full_like(largest_R, torch.inf)
    scale_R = largest_R
    for fraction in torch.linspace(1.0, 0.25, FRACTIONS):
        tried_R = coarse(largest_R * fraction)
        error_R = squared_error(values_RM, tried_R, bits)
        scale_R = torch.where(error_R < best_R, tried_R, scale_R)
        best_R = torch.minimum(error_R, best_R)
    return round_to_grid(weight, scale_R, bits)


def coarse(scale_R: Tensor) -> Tensor:
    """Return positive float32 scales that bfloat16 holds exactly."""
    return scale_R.to(torch.bfloat16).float().clamp(min=SMALLEST_SCALE)


def squared_error(values_RM: Tensor, scale_R: Tensor, bits: int) -> Tensor:
    """Return the squared error of each row of ``values_RM`` on the grid of its scale, [R]."""
    limit = weight_limit(bits)
    scale_R1 = scale_R[:, None]
    grid_RM = torch.round(values_RM / scale_R1).clamp_(-limit, limit).mul_(scale_R1)
    return grid_RM.sub_(values_RM).square_().sum(1)
