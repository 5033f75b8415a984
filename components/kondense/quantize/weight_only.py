"""Weight-only quantization: weights of 2 to 8 bits, activations in float.

Shapes: weight [O, I, ...] -> scale [O] or [1]; R scales.
"""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from kondense.artifacts.model import Model
from kondense.artifacts.quantized import QuantizedTensor
from kondense.artifacts.reparametrized import baked_copy
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.context import Context
from kondense.quantize.fake_quantize import FakeQuantizedNetwork, weight_grids
from kondense.quantize.grid import SMALLEST_SCALE, largest_scale, round_to_grid, rows, weight_limit
from kondense.quantize.layers import bits_by_layer, with_weights

METHOD = {
    "name": "weight_only",
    "kind": "weights",
    "summary": "stores weights as integers of `bits` bits",
    "function": "apply",
    "fine_tune": True,
    "step": "pack_weights",
}
STEPS_PER_OCTAVE = 128  # number of bfloat16 values from one power of two to the next
LARGEST_SHIFT = 120  # in powers of two
SMALL = 2**16  # weights of a tensor up to which every scale is tried; above, every fourth


def apply(model: Model, context: Context) -> Model:
    """Quantize ``model`` with the config's parameters; see ``quantize`` and ``fine_tune``."""
    config = context.config
    context.summary = f"quantize weights to {config.bits} bits per {config.granularity}{fine_tuning(config)}"
    quantized = quantize(model, bits=config.bits, granularity=config.granularity)
    return fine_tune(model, quantized, context) if config.fine_tune else quantized


def fine_tuning(config: QuantizeConfig) -> str:
    """Return the end of a summary: the epochs of fine-tuning, if any."""
    return f", {config.epochs} epochs of fine-tuning" if config.fine_tune else ""


def quantize(model: Model, *, bits: int | Mapping[str, int] = 4, granularity: str = "channel") -> Model:
    """Return ``model`` with the weights of its convolutions and linear layers on uniform symmetric grids.

    Zeros remain zeros, so a pruned network keeps its sparsity.

    Args:
        model: a float model; it is not changed.
        bits: bits per weight, 2 to 8, one number or one by layer.
        granularity: ``channel`` or ``tensor``.
    """
    quantized = {
        f"{name}.weight": quantize_weight(
            model.module.get_parameter(f"{name}.weight"), bits=count, granularity=granularity
        )
        for name, count in bits_by_layer(model.module, bits).items()
    }
    return with_weights(model, quantized)


def fine_tune(model: Model, quantized: Model, context: Context, *, learn: bool = True) -> Model:
    """Return ``quantized`` after training on its grids.

    Args:
        model: the float model before quantization; training starts from its weights.
        quantized: its weights on uniform grids, activations in float.
        context: how to train.
        learn: whether to train the step sizes too, as bfloat16 values in the end.

    Source: Esser et al. 2020.
    """
    network_module = baked_copy(model.module)
    grids = weight_grids(quantized, network_module, learn=learn, two_bytes=learn)
    network = FakeQuantizedNetwork(network_module, grids)
    masks = {network.parameter_name(name): mask for name, mask in model.masks().items()}
    context.train(network, "fine-tune", masks=masks)
    module = network.unwrap()
    tensors = {
        f"{name}.weight": round_to_grid(module.get_parameter(f"{name}.weight"), grid.scale(), grid.bits)
        for name, grid in grids.items()
    }
    return with_weights(dataclasses.replace(quantized, module=module), tensors)


def quantize_weight(weight: Tensor, *, bits: int, granularity: str) -> QuantizedTensor:
    """Return ``weight`` on the grid of ``least_error_scale``."""
    return round_to_grid(weight, least_error_scale(weight, bits, granularity), bits)


def weight_scale(weight: Tensor, bits: int, granularity: str) -> Tensor:
    """Return the scale [O] or [1] for integer kernels: no clipping at 8 bits, least squared error below."""
    return (largest_scale if bits == 8 else least_error_scale)(weight, bits, granularity)


def least_error_scale(weight: Tensor, bits: int, granularity: str) -> Tensor:
    """Return the scale, [O] or [1], with the least squared error among the candidates.

    Candidates are the bfloat16 values from just above the scale that clips nothing down two octaves (one octave from
    5 bits on, where more clipping never helps). A scale thus takes two bytes instead of four.
    """
    values_RM = rows(weight, granularity)
    # Squares of tiny or huge weights leave the range of float32; a power of two changes no rounding.
    power_R = torch.frexp(values_RM.abs().amax(1)).exponent.clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    values_RM = torch.ldexp(values_RM, -power_R[:, None])
    largest_R = torch.ldexp(largest_scale(weight, bits, granularity), -power_R)
    codes_R = largest_R.to(torch.bfloat16).view(torch.int16) + 2
    best_R = torch.full(codes_R.shape, torch.inf)
    scale_R = torch.empty_like(best_R)
    for step in range(0, STEPS_PER_OCTAVE * (2 if bits < 5 else 1), 1 if weight.numel() <= SMALL else 4):
        candidate_R = (codes_R - step).view(torch.bfloat16).float()
        error_R = squared_error(values_RM, candidate_R, bits)
        scale_R = torch.where(error_R < best_R, candidate_R, scale_R)
        best_R = torch.minimum(error_R, best_R)
    return torch.ldexp(scale_R, power_R).clamp(min=SMALLEST_SCALE)


def squared_error(values_RM: Tensor, scale_R: Tensor, bits: int) -> Tensor:
    """Return the squared error of each row of ``values_RM`` on the grid of its scale, [R]."""
    limit = weight_limit(bits)
    scale_R1 = scale_R[:, None]
    grid_RM = torch.round(values_RM / scale_R1).clamp_(-limit, limit).mul_(scale_R1)
    return grid_RM.sub_(values_RM).square_().sum(1)
