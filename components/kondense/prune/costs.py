"""The cost of each layer as a function of its channel counts: MACs, parameters, bytes or channels."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

from kondense.artifacts.structure import RECURRENT
from kondense.channels.groups import WEIGHTED, by_output
from kondense.channels.hidden_units import reads
from kondense.channels.surgery import side_length
from kondense.measuring.size import count_macs
from kondense.prune.allocation import Layer


def layer_costs(
    module: nn.Module, target: str, image_shape: tuple[int, int, int], roots: Iterable[str]
) -> dict[str, Layer]:
    """Return the cost of every layer with weights, by module name.

    Args:
        module: the network.
        target: ``macs``, ``parameters``, ``bytes`` (of parameters and running statistics) or ``channels``;
            the last counts the channels of each group once.
        image_shape: shape of one image, (C, H, W).
        roots: names of the groups, each that of a layer.
    """
    if target == "channels":
        return {name: Layer(side_length(module.get_submodule(name), output=True), 1, 0.0, 1.0) for name in roots}
    macs = count_macs(module, image_shape) if target == "macs" else {}
    size = 4.0 if target == "bytes" else 1.0  # float32
    costs = {}
    for name, layer in module.named_modules():
        if isinstance(layer, WEIGHTED):
            outputs, inputs, *taps = by_output(layer, layer.weight).shape
            if target == "macs":  # every weight is used once at each position
                costs[name] = Layer(outputs, inputs, math.prod(taps) * macs[name] / layer.weight.numel(), 0.0)
            else:
                costs[name] = Layer(outputs, inputs, size * math.prod(taps), size * float(layer.bias is not None))
        elif isinstance(layer, RECURRENT):
            costs[name] = _recurrent(layer, macs[name] if target == "macs" else None, size)
        elif isinstance(layer, nn.MultiheadAttention) and target == "macs":
            costs[name] = Layer(1, 1, float(macs[name]), 0.0)  # no channel of it can be removed
        elif target != "macs":
            numbers = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
            if target == "bytes":
                numbers += sum(buffer.numel() for buffer in layer.buffers(recurse=False) if buffer.ndim)
            if numbers:
                outputs = len(next(layer.parameters(recurse=False)))
                costs[name] = Layer(outputs, 1, 0.0, size * numbers / outputs)
    return costs


def _recurrent(layer: Any, macs: int | None, size: float) -> Layer:
    """Return the cost of a recurrent layer, whose inputs are those of the module and all places that read a unit."""
    weights = sum(tensor.numel() for name, tensor in layer.named_parameters() if name.startswith("weight"))
    others = sum(tensor.numel() for name, tensor in layer.named_parameters() if not name.startswith("weight"))
    units, inputs = layer.hidden_size, layer.input_size + reads(layer) * layer.hidden_size
    whole = size * weights if macs is None else float(macs)
    return Layer(units, inputs, whole / (units * inputs), 0.0 if macs is not None else size * others / units)
