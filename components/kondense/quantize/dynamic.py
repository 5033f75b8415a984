"""Dynamic quantization: int8 weights, and activations on grids of their own minimum and maximum at run time.

It needs no calibration. Shapes: weight [O, I, ...] -> scale [O] or [1].
"""

import dataclasses
from collections.abc import Mapping

from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.model import Model, model_probes
from kondense.artifacts.quantized import DynamicQuantizer, install_quantizers
from kondense.quantize.context import Context
from kondense.quantize.grid import round_to_grid
from kondense.quantize.layers import bits_by_layer, with_weights
from kondense.quantize.weight_only import weight_scale

METHOD = {
    "name": "dynamic",
    "kind": "activations",
    "summary": "computes on integers, with activation ranges found at run time",
    "function": "apply",
}


def apply(model: Model, context: Context) -> Model:
    """Quantize ``model`` with the config's parameters; see ``quantize``."""
    config = context.config
    context.summary = f"quantize to {config.bits}-bit weights and 8-bit activations at run time"
    return quantize(model, bits=config.bits, granularity=config.granularity)


def quantize(model: Model, *, bits: int | Mapping[str, int] = 8, granularity: str = "channel") -> Model:
    """Return ``model`` with integer weights, folded batch norms, and inputs that are quantized at run time.

    Biases remain in float. Zeros remain zeros.

    Args:
        model: a float model; it is not changed.
        bits: bits per weight, 2 to 8, one number or one by layer; below 8 bits the largest weights may be clipped.
        granularity: ``channel`` or ``tensor``, of the weights.

    Source: onnxruntime's quantize_dynamic (asymmetric uint8 activations per tensor).
    """
    module, quantized = fold_batch_norms(model.module, model_probes(model)), {}
    for name, count in bits_by_layer(module, bits).items():
        weight = module.get_parameter(f"{name}.weight")
        quantized[f"{name}.weight"] = round_to_grid(weight, weight_scale(weight, count, granularity), count)
    result = with_weights(dataclasses.replace(model, module=module), quantized)
    activations = {name.removesuffix(".weight"): DynamicQuantizer() for name in quantized}
    install_quantizers(result.module, activations)
    return dataclasses.replace(result, activations=activations)
