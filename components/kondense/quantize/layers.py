"""The layers of a network whose weights can be quantized, and a model's quantized weights."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import nn

from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.model import Model, model_probes
from kondense.artifacts.quantized import CodebookTensor, QuantizedTensor
from kondense.artifacts.reparametrized import baked_copy
from kondense.artifacts.ties import owners
from kondense.networks.layers import WITH_KERNELS, float_reason


def quantizable_layers(module: nn.Module) -> list[str]:
    """Return the names of the layers whose weights can be quantized: Conv2d and Linear, in the network's order."""
    return [
        name
        for name, layer in module.named_modules()
        if type(layer) in WITH_KERNELS and (not isinstance(layer, nn.Conv2d) or layer.padding_mode == "zeros")
    ]


def bits_by_layer(module: nn.Module, bits: int | Mapping[str, int]) -> Mapping[str, int]:
    """Return the bits of each quantizable layer, one number for all or one by layer; tied layers have equal ones."""
    if isinstance(bits, int):
        return dict.fromkeys(quantizable_layers(module), bits)
    first = owners(module)
    return {name: bits.get(first[name], count) for name, count in bits.items()}


def owned(model: Model, module: nn.Module) -> dict[str, QuantizedTensor | CodebookTensor]:
    """Return the quantized weights of ``model`` by layer, each the very one of the first layer tied to it."""
    first = owners(module)
    by_owner = {first[name.removesuffix(".weight")]: tensor for name, tensor in reversed(list(model.quantized.items()))}
    return {name: by_owner[first[name]] for name in (weight.removesuffix(".weight") for weight in model.quantized)}


@torch.no_grad()
def with_weights(model: Model, quantized: Mapping[str, QuantizedTensor | CodebookTensor]) -> Model:
    """Return a copy of ``model`` with ``quantized`` weights, by parameter name."""
    module = baked_copy(model.module).eval()
    for name, tensor in quantized.items():
        module.get_parameter(name).copy_(tensor.dequantize())
    return dataclasses.replace(model, module=module, quantized=quantized)


def float_layers(model: Model) -> list[str]:
    """Return the names of the layers with weights of at least two dimensions that remain in float."""
    return [
        name.removesuffix(".weight")
        for name, parameter in model.module.named_parameters()
        if parameter.ndim > 1 and name not in model.quantized
    ]


def float_reasons(model: Model) -> dict[str, str]:
    """Return for each of ``float_layers`` why it remains in float."""
    parameters, modules = dict(model.module.named_parameters()), dict(model.module.named_modules())
    reasons = {}
    for name in float_layers(model):
        weight = f"{name}.weight" if f"{name}.weight" in parameters else name
        owner, _, leaf = weight.rpartition(".")
        reasons[name] = float_reason(modules[owner], leaf)
    return reasons


def zeroed_layers(quantized: Model, original: Model) -> list[str]:
    """Return the names of the layers all of whose weights are rounded to zero although ``original`` has others."""
    names = [name for name, tensor in quantized.quantized.items() if not tensor.dequantize().any()]
    if not names:
        return []
    folded = fold_batch_norms(original.module, model_probes(original))
    return [name.removesuffix(".weight") for name in names if bool(folded.get_parameter(name).any())]


def weight_errors(quantized: Model, original: Model) -> dict[str, float]:
    """Return the relative root mean square error of each quantized weight, by layer.

    Not included are layers with a folded batch norm, whose weights are rescaled, and layers that lost channels.
    """
    originals = dict(original.module.named_parameters(remove_duplicate=False))
    folded = {name for name in quantized.quantized if f"{name.removesuffix('.weight')}.bias" not in originals}
    errors = {}
    for name, tensor in quantized.quantized.items():
        original_weight = originals[name].detach().double()  # in which no square is zero or infinite
        norm = float(original_weight.norm())
        if norm and name not in folded and tensor.integers.shape == original_weight.shape:
            errors[name.removesuffix(".weight")] = float((tensor.dequantize() - original_weight).norm()) / norm
    return errors
