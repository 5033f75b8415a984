"""The cost of each layer as a function of its channel counts: MACs, parameters, bytes or channels."""

import math
from collections.abc import Iterable

from torch import nn

from kondense.channels.groups import WEIGHTED
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
        return {name: Layer(module.get_parameter(f"{name}.weight").shape[0], 1, 0.0, 1.0) for name in roots}
    macs = count_macs(module, image_shape) if target == "macs" else {}
    size = 4.0 if target == "bytes" else 1.0  # float32
    costs = {}
    for name, layer in module.named_modules():
        if isinstance(layer, WEIGHTED):
            outputs, inputs, *taps = layer.weight.shape
            if target == "macs":  # every weight is used once at each position of the output
                costs[name] = Layer(outputs, inputs, math.prod(taps) * macs[name] / layer.weight.numel(), 0.0)
            else:
                costs[name] = Layer(outputs, inputs, size * math.prod(taps), size * float(layer.bias is not None))
        elif target != "macs":
            numbers = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
            if target == "bytes":
                numbers += sum(buffer.numel() for buffer in layer.buffers(recurse=False) if buffer.ndim)
            if numbers:
                outputs = len(next(layer.parameters(recurse=False)))
                costs[name] = Layer(outputs, 1, 0.0, size * numbers / outputs)
    return costs
