"""Fixed point: weights of q bits as fractions in [-1, 1), the scheme of the article that Kondense stems from.

A weight is an integer times 2^-(q-1), the same step for every layer; what lies outside is clipped. Deviation:
the grid is symmetric, so its lowest value is -1 + 2^-(q-1) instead of -1.
"""

import copy
import dataclasses

import torch

from kondense.artifacts.model import Model
from kondense.errors import InputError
from kondense.quantize.grid import round_to_grid
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.request import Request
from kondense.quantize.weight_only import fine_tune


def apply(model: Model, request: Request) -> Model:
    """Quantize ``model`` as the request's config says; the lineage record's ``clipped`` counts weights outside."""
    request.details["clipped"] = {
        name: int((model.module.get_submodule(name).weight.detach().abs() > 1 - step(request.config.bits)).sum())
        for name in quantizable_layers(model.module)
    }
    quantized = quantize(model, bits=request.config.bits)
    return fine_tune(model, quantized, request, learn=False) if request.config.fine_tune else quantized


def step(bits: int) -> float:
    """Return the distance between neighbouring values, 2^-(bits - 1)."""
    return float(2.0 ** (1 - bits))


def quantize(model: Model, *, bits: int = 8) -> Model:
    """Return ``model`` with the weights of its convolutions and linear layers in fixed point.

    Args:
        model: a float model; it is left as it was.
        bits: of a weight, 2 to 8.

    Raises:
        ValueError: the model is quantized already.
    """
    if model.quantized or model.activations:
        raise InputError("a model must be quantized once, but this one is quantized already.")
    module = copy.deepcopy(model.module).eval()
    quantized = {}
    for name in quantizable_layers(module):
        weight = module.get_parameter(f"{name}.weight")
        quantized[f"{name}.weight"] = tensor = round_to_grid(weight, torch.tensor([step(bits)]), bits)
        with torch.no_grad():
            weight.copy_(tensor.dequantize())
    return dataclasses.replace(model, module=module, quantized=quantized)
