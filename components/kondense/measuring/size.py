"""Parameters, non-zeros, multiply-accumulates and bits, per layer and in total.

Shapes: one image is (C, H, W); a weight is [O, I, ...].
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.export.trace import layer_by_layer
from kondense.networks.layers import CONVOLUTIONS, TRANSPOSED, float_reason


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of ``module``, without buffers such as running statistics."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_nonzero(module: nn.Module) -> int:
    """Return the number of non-zero parameters of ``module``."""
    return sum(int(torch.count_nonzero(parameter)) for parameter in module.parameters())


def fp32_bytes(module: nn.Module) -> int:
    """Return the size of the parameters as dense float32, in bytes."""
    return 4 * count_parameters(module)


def count_macs(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Count the multiply-accumulates of one image in every layer with weights, by module name.

    These are convolutions, transposed ones included, linear and recurrent layers, and the projections of
    ``nn.MultiheadAttention``. A layer that runs twice counts twice; one that does not run counts 0. Bias
    additions, normalisation, activations and pooling are not counted, as is usual.

    Args:
        module: the network; it keeps its mode and its weights.
        shape: the shape of one image, (C, H, W).
    """
    macs: dict[str, int] = {}
    handles = []

    def count(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            if isinstance(layer, nn.MultiheadAttention):
                query, key, value = (*inputs, *(named[each] for each in ("query", "key", "value")[len(inputs) :]))[:3]
                macs[name] += _projections(layer, query, key, value)
            else:
                macs[name] += _layer_macs(layer, inputs[0], output)

        return hook

    for name, layer in module.named_modules():
        if isinstance(layer, (*CONVOLUTIONS, nn.Linear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)):
            macs[name] = 0
            handles.append(layer.register_forward_hook(count(name), with_kwargs=True))
    was_training = module.training
    module.eval()
    try:
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        with torch.no_grad(), layer_by_layer():
            module(torch.zeros(1, *shape, device=device))
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    return macs


def _projections(layer: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> int:
    """Return the multiply-accumulates of the projections of query, key, value and result."""
    return layer.embed_dim * (query.numel() + key.numel() + value.numel() + query.numel())


def _layer_macs(layer: nn.Module, inputs: Any, output: Any) -> int:
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        data = inputs.data if isinstance(inputs, nn.utils.rnn.PackedSequence) else inputs
        weights = [parameter for name, parameter in layer.named_parameters() if name.startswith("weight")]
        return data.numel() // layer.input_size * sum(weight.numel() for weight in weights)
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    assert isinstance(layer, CONVOLUTIONS)
    if isinstance(layer, TRANSPOSED):
        return inputs.numel() * (layer.out_channels // layer.groups) * math.prod(layer.kernel_size)
    return output.numel() * (layer.in_channels // layer.groups) * math.prod(layer.kernel_size)


def layer_table(model: Model, shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Return one row per module with parameters of its own, in the order of the network.

    A row has ``name``, ``type``, ``shape`` (of the weight), ``parameters``, ``nonzero``, ``sparsity`` (fraction of the
    parameters that is zero), ``bits`` (of one weight; 32 if it is not quantized) and ``macs`` (of one image). In a
    quantized model a layer with a float weight has a ``float_reason``.
    """
    macs = count_macs(model.module, shape)
    rows = []
    for name, layer in model.module.named_modules():
        parameters = dict(layer.named_parameters(recurse=False))
        if not parameters:
            continue
        leaf = "weight" if "weight" in parameters else next(iter(parameters))
        weight = parameters[leaf]
        quantized = model.quantized.get(f"{name}.weight" if name else "weight")
        total = sum(parameter.numel() for parameter in parameters.values())
        nonzero = sum(int(torch.count_nonzero(parameter)) for parameter in parameters.values())
        rows.append(
            {
                "name": name,
                "type": type(layer).__name__,
                "shape": list(weight.shape),
                "parameters": total,
                "nonzero": nonzero,
                "sparsity": 1 - nonzero / total if total else 0.0,
                "bits": quantized.bits if quantized else 8 * weight.element_size(),
                "macs": macs.get(name, 0),
            }
        )
        if model.quantized and quantized is None and weight.ndim > 1:
            rows[-1]["float_reason"] = float_reason(layer, leaf)
    return rows
