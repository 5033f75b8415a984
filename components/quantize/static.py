"""Static quantization after training: integer weights, and activations on grids found by calibration.

Shapes: images [N, C, H, W]; weight [O, I, ...] -> scale [O] or [1]; bias [O].
"""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from components.artifacts.fold import fold_batch_norms
from components.artifacts.model import Model
from components.artifacts.quantized import ActivationQuantizer, QuantizedTensor, install_quantizers
from components.quantize.grid import activation_quantizer, largest_scale, round_to_grid
from components.quantize.layers import quantizable_layers
from components.quantize.observers import CALIBRATIONS, observe
from components.quantize.points import quantization_points
from components.quantize.request import Request

LARGEST_BIAS = 2**30  # integers of a bias stay below this, half of what int32 holds


def apply(model: Model, request: Request) -> Model:
    """Quantize ``model`` as the request's config says; see ``quantize``."""
    config = request.config
    return quantize(
        model,
        request.calibration_batches(),
        bits=config.bits,
        granularity=config.granularity,
        calibration=config.calibration,
        percentile=config.percentile,
    )


def quantize(
    model: Model,
    batches_NCHW: Iterable[Tensor],
    *,
    bits: int = 8,
    granularity: str = "channel",
    calibration: str = "minmax",
    percentile: float = 99.99,
) -> Model:
    """Return ``model`` with integer weights and quantized activations; it is left as it was.

    Batch norms are folded first. Weights are symmetric int8 within ``bits``, activations uint8 per tensor, and
    biases lie on the grid of int32 accumulators, so that an integer engine computes the very same.

    Args:
        model: a float model.
        batches_NCHW: calibration images, normalised.
        bits: of the weights, 2 to 8. On processors without VNNI some engines add pairs of products in
            16 bits; 7 bits are safe there.
        granularity: ``channel`` or ``tensor``, of the weights.
        calibration: how to find the range of an activation, one of CALIBRATIONS.
        percentile: of the values that ``percentile`` calibration keeps.

    Raises:
        ValueError: the model is quantized already, or calibration meets no image or no finite values.

    Source: Jacob et al. 2018, section 2.
    """
    if model.quantized or model.activations:
        raise ValueError("a model must be quantized once, but this one is quantized already.")
    module = fold_batch_norms(model.module)
    layers = quantizable_layers(module)
    points = quantization_points(module, layers)
    find_range = CALIBRATIONS[calibration]
    activations = {
        name: activation_quantizer(*find_range(observation, percentile))
        for name, observation in observe(module, points, batches_NCHW).items()
    }
    quantized = {}
    for name in layers:
        layer = module.get_submodule(name)
        weight = _quantize_layer(layer, activations[name], bits, granularity)
        quantized[f"{name}.weight"] = weight
    install_quantizers(module, activations)
    return dataclasses.replace(model, module=module, quantized=quantized, activations=activations)


def _quantize_layer(layer: nn.Module, activation: ActivationQuantizer, bits: int, granularity: str) -> QuantizedTensor:
    """Quantize the weight and the bias of ``layer`` in place; return the weight's integers."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    scale = largest_scale(layer.weight, bits, granularity)
    if layer.bias is not None:
        # A channel of tiny weights would push its bias out of int32; a coarser grid costs it nothing.
        bias_O = layer.bias.detach().abs()
        needed = (bias_O if granularity == "channel" else bias_O.amax(0, keepdim=True)) / activation.scale
        scale = torch.maximum(scale, needed / LARGEST_BIAS)
    quantized = round_to_grid(layer.weight, scale, bits)
    with torch.no_grad():
        layer.weight.copy_(quantized.dequantize())
        if layer.bias is not None:
            step = (scale * activation.scale).double()
            layer.bias.copy_(torch.round(layer.bias.double() / step) * step)
    return quantized
