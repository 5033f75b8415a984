"""The hidden units and inputs of a recurrent layer.

A hidden unit has its rows in the weights and biases of every gate, and columns where the next step and the next layer
read it. It is removed from all layers and directions of a module, which have one ``hidden_size``.

Shapes: H hidden units; weight_ih [gates * H, inputs], weight_hh [gates * H, H].
"""

from typing import Any

import torch
from torch import Tensor, nn

from kondense.artifacts.structure import relink


def columns(module: Any, key: str, units: Tensor) -> Tensor | None:
    """Return the columns of a tensor of a recurrent layer that read some hidden units, or None if it reads none."""
    if key.startswith("weight_hh"):
        return units
    if key.startswith("weight_ih") and isinstance(module, nn.RNNBase) and not key.startswith("weight_ih_l0"):
        directions = 2 if module.bidirectional else 1
        return torch.cat([units + direction * module.hidden_size for direction in range(directions)])
    return None


def keep_hidden(module: Any, index: Tensor) -> None:
    """Keep some hidden units of a recurrent layer, in place; ``index`` [n]."""
    for key, parameter in list(module._parameters.items()):
        if parameter is not None:
            gates = len(parameter) // module.hidden_size
            rows = torch.cat([index + gate * module.hidden_size for gate in range(gates)])
            tensor, read = parameter.detach().index_select(0, rows), columns(module, key, index)
            tensor = tensor if read is None else tensor.index_select(1, read)
            module._parameters[key] = nn.Parameter(tensor.contiguous(), parameter.requires_grad)
    module.hidden_size = len(index)
    relink(module)


def keep_inputs(module: Any, index: Tensor) -> None:
    """Keep some inputs of a recurrent layer, in place; ``index`` [n]."""
    for key, parameter in list(module._parameters.items()):
        if key == "weight_ih" or key.startswith("weight_ih_l0"):
            tensor = parameter.detach().index_select(1, index)
            module._parameters[key] = nn.Parameter(tensor.contiguous(), parameter.requires_grad)
    module.input_size = len(index)
    relink(module)


def reads(module: Any) -> int:
    """Return how many columns of the weights of one gate of a direction read a hidden unit."""
    if not isinstance(module, nn.RNNBase):
        return 1
    directions = 2 if module.bidirectional else 1
    return 1 + (module.num_layers - 1) * (directions + 1)
