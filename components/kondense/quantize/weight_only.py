"""Weight-only quantization: weights of 2 to 8 bits, activations in float.

Shapes: weight [O, I, ...] -> scale [O] or [1]; R scales.
"""

import copy
import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from kondense.artifacts.model import Model
from kondense.artifacts.quantized import QuantizedTensor
from kondense.errors import InputError
from kondense.quantize.fake_quantize import FakeQuantizedNetwork, WeightGrid
from kondense.quantize.grid import SMALLEST_SCALE, largest_scale, round_to_grid, rows, weight_limit
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.request import Request

STEPS_PER_OCTAVE = 128  # scales that bfloat16 holds from one power of two to the next
SMALL = 2**16  # weights of a tensor up to which every scale is tried; where there are more, every fourth


def apply(model: Model, request: Request) -> Model:
    """Quantize ``model`` as the request's config says; see ``quantize`` and ``fine_tune``."""
    quantized = quantize(model, bits=request.config.bits, granularity=request.config.granularity)
    return fine_tune(model, quantized, request) if request.config.fine_tune else quantized


def quantize(model: Model, *, bits: int | Mapping[str, int] = 4, granularity: str = "channel") -> Model:
    """Return ``model`` with the weights of its convolutions and linear layers on uniform symmetric grids.

    Zeros stay zeros, so that a pruned network stays as sparse as it is.

    Args:
        model: a float model; it is left as it was.
        bits: of a weight, 2 to 8, one number or one by layer.
        granularity: ``channel`` or ``tensor``.

    Raises:
        ValueError: the model is quantized already.
    """
    if model.quantized or model.activations:
        raise InputError("a model must be quantized once, but this one is quantized already.")
    module = copy.deepcopy(model.module).eval()
    quantized = {}
    for name in quantizable_layers(module):
        weight = module.get_parameter(f"{name}.weight")
        layer_bits = bits if isinstance(bits, int) else bits[name]
        quantized[f"{name}.weight"] = quantize_weight(weight, bits=layer_bits, granularity=granularity)
        with torch.no_grad():
            weight.copy_(quantized[f"{name}.weight"].dequantize())
    return dataclasses.replace(model, module=module, quantized=quantized)


def fine_tune(model: Model, quantized: Model, request: Request, *, learn: bool = True) -> Model:
    """Return ``quantized`` after training on its grids.

    Args:
        model: the float model that ``quantized`` was made of; the training starts from its weights.
        quantized: its weights on uniform grids, activations in float.
        request: how to train.
        learn: whether the grids' steps are trained too; they end as numbers that bfloat16 holds.

    Source: Esser et al. 2020.
    """
    grids = {
        name.removesuffix(".weight"): WeightGrid(tensor.scale, tensor.bits, learn=learn, two_bytes=learn)
        for name, tensor in quantized.quantized.items()
    }
    network = FakeQuantizedNetwork(copy.deepcopy(model.module), grids)
    masks = {network.parameter_name(name): mask for name, mask in model.masks().items()}
    request.train(network, "fine-tune", masks=masks)
    module, tensors = network.unwrap(), {}
    for name, grid in grids.items():
        weight = module.get_submodule(name).weight
        tensors[f"{name}.weight"] = round_to_grid(weight, grid.scale(), grid.bits)
        with torch.no_grad():
            weight.copy_(tensors[f"{name}.weight"].dequantize())
    return dataclasses.replace(quantized, module=module, quantized=tensors)


def quantize_weight(weight: Tensor, *, bits: int, granularity: str) -> QuantizedTensor:
    """Return ``weight`` on the grid of ``least_error_scale``."""
    return round_to_grid(weight, least_error_scale(weight, bits, granularity), bits)


def least_error_scale(weight: Tensor, bits: int, granularity: str) -> Tensor:
    """Return the scale, [O] or [1], with the least squared error among those tried.

    Tried are the scales that bfloat16 holds, from just above the one that clips nothing down two octaves
    (one from 5 bits on, where more clipping never pays). So a scale costs two bytes, not four.
    """
    values_RM = rows(weight, granularity)
    codes_R = largest_scale(weight, bits, granularity).to(torch.bfloat16).view(torch.int16) + 2
    best_R = torch.full(codes_R.shape, torch.inf)
    scale_R = torch.empty_like(best_R)
    for step in range(0, STEPS_PER_OCTAVE * (2 if bits < 5 else 1), 1 if weight.numel() <= SMALL else 4):
        tried_R = (codes_R - step).view(torch.bfloat16).float().clamp(min=SMALLEST_SCALE)
        error_R = squared_error(values_RM, tried_R, bits)
        scale_R = torch.where(error_R < best_R, tried_R, scale_R)
        best_R = torch.minimum(error_R, best_R)
    return scale_R


def squared_error(values_RM: Tensor, scale_R: Tensor, bits: int) -> Tensor:
    """Return the squared error of each row of ``values_RM`` on the grid of its scale, [R]."""
    limit = weight_limit(bits)
    scale_R1 = scale_R[:, None]
    grid_RM = torch.round(values_RM / scale_R1).clamp_(-limit, limit).mul_(scale_R1)
    return grid_RM.sub_(values_RM).square_().sum(1)
