"""Dynamic quantization: int8 weights, and activations put on grids of their own extremes at run time.

It needs no calibration. Shapes: weight [O, I, ...] -> scale [O] or [1].
"""

import dataclasses
from collections.abc import Mapping

import torch

from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.model import Model
from kondense.artifacts.quantized import DynamicQuantizer, install_quantizers
from kondense.errors import InputError
from kondense.quantize.grid import largest_scale, round_to_grid
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.request import Request
from kondense.quantize.weight_only import least_error_scale


def apply(model: Model, request: Request) -> Model:
    """Quantize ``model`` as the request's config says; see ``quantize``."""
    return quantize(model, bits=request.config.bits, granularity=request.config.granularity)


def quantize(model: Model, *, bits: int | Mapping[str, int] = 8, granularity: str = "channel") -> Model:
    """Return ``model`` with integer weights, its batch norms folded, and inputs quantized as they come.

    Biases stay in float. Zeros stay zeros.

    Args:
        model: a float model; it is left as it was.
        bits: of a weight, 2 to 8, one number or one by layer. Below 8 bits the largest weights may be clipped.
        granularity: ``channel`` or ``tensor``, of the weights.

    Raises:
        ValueError: the model is quantized already.

    Source: onnxruntime's quantize_dynamic (asymmetric uint8 activations per tensor).
    """
    if model.quantized or model.activations:
        raise InputError("a model must be quantized once, but this one is quantized already.")
    module = fold_batch_norms(model.module)
    activations, quantized = {}, {}
    for name in quantizable_layers(module):
        weight = module.get_parameter(f"{name}.weight")
        layer_bits = bits if isinstance(bits, int) else bits[name]
        find = largest_scale if layer_bits == 8 else least_error_scale
        tensor = round_to_grid(weight, find(weight, layer_bits, granularity), layer_bits)
        with torch.no_grad():
            weight.copy_(tensor.dequantize())
        quantized[f"{name}.weight"], activations[name] = tensor, DynamicQuantizer()
    install_quantizers(module, activations)
    return dataclasses.replace(model, module=module, quantized=quantized, activations=activations)
