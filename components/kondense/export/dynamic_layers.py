"""Placeholder layers that are exported as onnxruntime's dynamic integer operators.

They are used only during export; their values in torch are meaningless.
Shapes: weight [O, I, ...], scale [O] or [1], bias [O].
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kondense.artifacts.quantized import DynamicQuantizer, QuantizedTensor
from kondense.networks.layers import StandIn

Attributes = dict[str, int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]]
ZERO = 128  # weights are unsigned: without VNNI the kernels for signed ones add pairs of products in 16 bits


class DynamicLayer(StandIn):
    """A layer that is exported as DynamicQuantizeLinear and ConvInteger or MatMulInteger, with a float bias."""

    integers: Tensor
    zero_point: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Module, weight: QuantizedTensor) -> None:
        super().__init__()
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        self.layer = copy.deepcopy(layer)
        hooks = self.layer._forward_pre_hooks  # torch has no public interface without the hook's handle
        for key in [key for key, hook in hooks.items() if isinstance(hook, DynamicQuantizer)]:
            del hooks[key]
        integers = (weight.integers.short() + ZERO).to(torch.uint8)
        self.places = [1] * (weight.integers.ndim - 2)  # of the axes after the channels
        self.register_buffer("integers", integers.t().contiguous() if isinstance(layer, nn.Linear) else integers)
        self.register_buffer("zero_point", torch.tensor(ZERO, dtype=torch.uint8))
        scale = weight.scale
        self.register_buffer("scale", scale.reshape(-1, *self.places) if len(scale) > 1 else scale[0])

    @property
    def weight(self) -> Tensor:
        """The float weight, for modules that read it themselves, such as nn.TransformerEncoderLayer."""
        return self.layer.weight

    @property
    def bias(self) -> Tensor | None:
        """The bias, for such modules."""
        return self.layer.bias

    def forward(self, values: Tensor) -> Tensor:
        """Call the operators to export."""
        quantized, scale, zero_point = torch.onnx.ops.symbolic_multi_out(
            "DynamicQuantizeLinear",
            (values,),
            dtypes=(torch.uint8, torch.float32, torch.uint8),
            shapes=(values.shape, (), ()),
            version=21,
        )
        inputs = (quantized, self.integers, zero_point, self.zero_point)
        # The float layer gives the shape; the exporter removes it.
        shape = self.layer(values).shape
        name, attributes = "MatMulInteger", None
        if isinstance(self.layer, nn.Conv2d):
            name, attributes = "ConvInteger", _attributes(self.layer)
        sums = torch.onnx.ops.symbolic(name, inputs, attributes, dtype=torch.int32, shape=shape, version=21)
        output: Tensor = sums.float() * (scale * self.scale)
        if self.layer.bias is not None:
            output = output + self.layer.bias.reshape(-1, *self.places)
        return output


def _attributes(layer: nn.Conv2d) -> Attributes:
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    return {
        "kernel_shape": list(layer.kernel_size),
        "strides": list(layer.stride),
        "dilations": list(layer.dilation),
        "group": layer.groups,
        "pads": [top, left, bottom, right],
    }
