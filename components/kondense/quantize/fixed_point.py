"""Fixed point: weights of q bits as fractions in [-1, 1), the scheme of the article that Kondense is based on.

A weight is an integer times 2^-(q-1), the same step for every layer; values outside are clipped. Deviation:
the grid is symmetric, so its lowest value is -1 + 2^-(q-1) instead of -1.
"""

import torch

from kondense.artifacts.model import Model
from kondense.quantize.context import Context
from kondense.quantize.grid import round_to_grid
from kondense.quantize.layers import quantizable_layers, with_weights
from kondense.quantize.weight_only import fine_tune, fine_tuning

METHOD = {
    "name": "fixed_point",
    "kind": "weights",
    "summary": "stores weights as fractions in [-1, 1) of `bits` bits",
    "function": "apply",
    "fine_tune": True,
    "step": "pack_weights",
}


def apply(model: Model, context: Context) -> Model:
    """Quantize ``model`` with the config's parameters; the detail ``clipped`` counts the clipped weights by layer."""
    config = context.config
    context.summary = f"quantize weights to {config.bits}-bit fixed point in [-1, 1){fine_tuning(config)}"
    context.details["clipped"] = {
        name: int((model.module.get_parameter(f"{name}.weight").detach().abs() > 1 - step(config.bits)).sum())
        for name in quantizable_layers(model.module)
    }
    quantized = quantize(model, bits=config.bits)
    return fine_tune(model, quantized, context, learn=False) if config.fine_tune else quantized


def step(bits: int) -> float:
    """Return the distance between neighbouring values, 2^-(bits - 1)."""
    return float(2.0 ** (1 - bits))


def quantize(model: Model, *, bits: int = 8) -> Model:
    """Return ``model`` with the weights of its convolutions and linear layers in fixed point.

    Args:
        model: a float model; it is not changed.
        bits: bits per weight, 2 to 8.
    """
    weights = {
        f"{name}.weight": model.module.get_parameter(f"{name}.weight") for name in quantizable_layers(model.module)
    }
    return with_weights(
        model, {name: round_to_grid(weight, torch.tensor([step(bits)]), bits) for name, weight in weights.items()}
    )
