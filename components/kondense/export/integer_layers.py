"""Placeholder layers that are exported as QuantizeLinear and DequantizeLinear with the artifact's integers.

They are used only during export; their values in torch are meaningless.
Shapes: weight [O, I, ...], scale [O] or [1], bias [O].
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.artifacts.quantized import (
    ActivationQuantizer,
    CodebookTensor,
    DynamicQuantizer,
    InputQuantizer,
    QuantizedTensor,
    install_quantizers,
    remove_quantizers,
)
from kondense.artifacts.structure import replace
from kondense.export.dynamic_layers import DynamicLayer
from kondense.networks.layers import StandIn


def replace_quantizers(module: nn.Module, activations: Mapping[str, InputQuantizer]) -> None:
    """Replace the static quantizers of ``module`` by pairs of ONNX nodes, in place."""
    # As to the others, see ``DynamicLayer``.
    static = {place: each for place, each in activations.items() if isinstance(each, ActivationQuantizer)}
    remove_quantizers(module, static)
    install_quantizers(module, {place: QuantizeDequantize(quantizer) for place, quantizer in static.items()})


def replace_layers(
    module: nn.Module,
    quantized: Mapping[str, QuantizedTensor | CodebookTensor],
    activations: Mapping[str, InputQuantizer],
) -> None:
    """Replace the quantized layers of ``module`` by layers with integer weight and bias, in place.

    Layers with a codebook, for which there is no integer kernel, keep float weights.
    """
    for weight_name, tensor in quantized.items():
        if isinstance(tensor, CodebookTensor):
            continue
        name = weight_name.removesuffix(".weight")
        layer = module.get_submodule(name)
        quantizer = activations.get(name)
        if isinstance(quantizer, DynamicQuantizer):
            replacement: nn.Module = DynamicLayer(layer, tensor)
        else:
            replacement = IntegerLayer(layer, tensor, quantizer)
        replace(module, name, replacement)


class QuantizeDequantize:
    """A forward pre-hook that is exported as QuantizeLinear and DequantizeLinear."""

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        self.scale = torch.tensor(quantizer.scale)
        self.zero_point = torch.tensor(quantizer.zero_point, dtype=torch.uint8)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the inputs of ``module`` with the first one quantized and dequantized."""
        first = inputs[0]
        grid = (self.scale, self.zero_point)
        integers = torch.onnx.ops.symbolic(
            "QuantizeLinear", (first, *grid), dtype=torch.uint8, shape=first.shape, version=21
        )
        values = torch.onnx.ops.symbolic(
            "DequantizeLinear", (integers, *grid), dtype=torch.float32, shape=first.shape, version=21
        )
        return (values, *inputs[1:])


class IntegerLayer(StandIn):
    """A layer whose weight is exported as integers, and with a quantized input its bias too."""

    integers: Tensor
    scale: Tensor
    zero_point: Tensor
    bias_integers: Tensor
    bias_scale: Tensor

    def __init__(self, layer: nn.Module, weight: QuantizedTensor, activation: ActivationQuantizer | None) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("integers", weight.integers)
        self.register_buffer("scale", weight.scale if len(weight.scale) > 1 else weight.scale[0])
        # Optional in the standard, but without it onnxruntime 1.32 fails on Gemm with one scale per channel.
        self.register_buffer("zero_point", torch.zeros_like(self.scale, dtype=torch.int8))
        bias = getattr(layer, "bias", None)
        self.integer_bias = activation is not None and bias is not None
        if activation is not None and bias is not None:
            # The scale of the accumulator, as onnxruntime assumes.
            scale_O = weight.scale.double() * activation.scale
            self.register_buffer("bias_integers", torch.round(bias.detach().double() / scale_O).int())
            self.register_buffer("bias_scale", scale_O.float() if len(scale_O) > 1 else scale_O.float()[0])

    @property
    def weight(self) -> Tensor:
        """The weight to export, for modules that read it themselves, such as nn.TransformerEncoderLayer."""
        return _dequantize(self.integers, self.scale, self.zero_point)

    @property
    def bias(self) -> Tensor | None:
        """The bias in float, for such modules."""
        return self.layer.bias  # type: ignore[return-value]  # of a convolution or linear layer

    def forward(self, values: Tensor) -> Tensor:
        """Call the layer with the weight and bias to export."""
        parameters = {"weight": self.weight}
        if self.integer_bias:
            parameters["bias"] = _dequantize(self.bias_integers, self.bias_scale)
        output: Tensor = torch.func.functional_call(self.layer, parameters, (values,))
        return output


def _dequantize(integers: Tensor, *grid: Tensor) -> Tensor:
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", (integers, *grid), {"axis": 0}, dtype=torch.float32, shape=integers.shape, version=21
    )
