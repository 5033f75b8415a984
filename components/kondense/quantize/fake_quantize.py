"""Layers that train with the values of their quantized forms: fake quantization with learnt step sizes.

Shapes: weight [O, I, ...] with a step [O] or [1]; a layer's input [N, ...] with a step [1]; R steps.

Source: Esser et al. 2020, "Learned step size quantization". Deviation: steps start from calibration.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.artifacts.quantized import OUTPUT, ActivationQuantizer, QuantizedTensor
from kondense.artifacts.structure import replace
from kondense.export.trace import layer_by_layer
from kondense.networks.layers import StandIn
from kondense.quantize.grid import SMALLEST_SCALE, weight_limit
from kondense.quantize.layers import owned

SMALLEST_GAIN = torch.finfo(torch.float32).eps


class RoundToStep(torch.autograd.Function):
    """Round to a grid; the gradient passes through inside the grid, and the step size has one too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor, rounded: Tensor, inside: Tensor) -> Tensor:
        """Return ``rounded``, which is ``values`` on the grid of ``step`` (broadcastable to it)."""
        ctx.save_for_backward(values, step, rounded, inside)
        return rounded.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return the gradients of the values and of the step (Esser et al. 2020, equations 3 and 5)."""
        values, step, rounded, inside = ctx.saved_tensors
        (gradient,) = gradients
        passed = gradient * inside
        # Inside the grid (rounded - value) / step, outside rounded / step.
        by_step = (gradient * rounded - passed * values) / step
        return passed, by_step.sum_to_size(step.shape), None, None


def scale_gradient(step: Tensor, factor: float) -> Tensor:
    """Return ``step`` with a gradient ``factor`` times as large (Esser et al. 2020, appendix A)."""
    scaled = step * factor
    return scaled + (step - scaled).detach()


class WeightGrid(nn.Module):
    """The symmetric grid of a weight, with a learnt or a fixed step size."""

    step: Tensor

    def __init__(self, step_R: Tensor, bits: int, *, learn: bool = True, two_bytes: bool = False) -> None:
        super().__init__()
        self.bits, self.two_bytes = bits, two_bytes
        if learn:
            self.step = nn.Parameter(step_R.clone())
        else:
            self.register_buffer("step", step_R.clone())

    def scale(self) -> Tensor:
        """Return the step sizes [R]: positive and, with ``two_bytes``, bfloat16 values."""
        step_R = self.step.detach().abs()
        return (step_R.bfloat16().float() if self.two_bytes else step_R).clamp(min=SMALLEST_SCALE)

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``weight`` on the grid, with the integers of ``round_to_grid``."""
        limit, shape = weight_limit(self.bits), (-1, *[1] * (weight.ndim - 1))
        scale = self.scale().reshape(shape)
        with torch.no_grad():
            integers = torch.round(weight / scale)
            inside = integers.abs() <= limit
            rounded = integers.clamp_(-limit, limit) * scale
        factor = (limit * weight.numel() / scale.numel()) ** -0.5
        step = scale_gradient(self.step.abs(), factor).reshape(shape)
        result: Tensor = RoundToStep.apply(weight, step, rounded, inside)
        return result


def weight_grids(model: Model, module: nn.Module, **options: bool) -> dict[str, WeightGrid]:
    """Return a grid for each weight on a uniform grid, by layer; tied layers share one.

    Args:
        model: the quantized model.
        module: the network to train, with the same ties.
        **options: of ``WeightGrid``.
    """
    made: dict[int, WeightGrid] = {}
    return {
        name: made.setdefault(id(tensor), WeightGrid(tensor.scale, tensor.bits, **options))
        for name, tensor in owned(model, module).items()
        if isinstance(tensor, QuantizedTensor)
    }


class InputGrid(nn.Module):
    """The grid of a layer's input: a learnt step size, and the zero point of calibration."""

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        self.zero_point, self.bits = quantizer.zero_point, quantizer.bits
        self.step = nn.Parameter(torch.tensor([quantizer.scale]))

    def quantizer(self) -> ActivationQuantizer:
        """Return the grid for an artifact."""
        return ActivationQuantizer(max(float(self.step.detach().abs()), SMALLEST_SCALE), self.zero_point, self.bits)

    def forward(self, values: Tensor) -> Tensor:
        """Return ``values`` on the grid, the same values as ``ActivationQuantizer``."""
        last = 2**self.bits - 1
        step = self.step.abs().clamp(min=SMALLEST_SCALE)
        zero_point = torch.tensor([self.zero_point], dtype=torch.int32, device=values.device)
        with torch.no_grad():
            values = values.float()
            rounded = torch.fake_quantize_per_tensor_affine(values, step, zero_point, 0, last)
            low, high = -(self.zero_point + 0.5) * step, (last - self.zero_point + 0.5) * step
            inside = (values > low) & (values < high)
        factor = (last * values[0].numel()) ** -0.5
        scaled = scale_gradient(step, factor).reshape([1] * values.ndim)
        result: Tensor = RoundToStep.apply(values, scaled, rounded, inside)
        return result


class FakeQuantizedLayer(StandIn):
    """A convolution or linear layer on its grids, with the batch norm that will be folded into it.

    Training normalises by the batch's statistics, but rounds the weight as it will be stored: scaled by the running
    statistics, which are divided out after the layer. Once ``frozen``, the layer normalises by the running statistics
    and computes the same as the folded layer.

    Source: Krishnamoorthi 2018, section 3.2.2 (batch norm with correction and freeze); in the form of
    torch.ao.nn.intrinsic.qat.ConvBn2d.
    """

    def __init__(
        self,
        layer: nn.Module,
        norm: nn.Module | None,
        weight: WeightGrid,
        values: InputGrid | None,
        output: InputGrid | None = None,
    ) -> None:
        super().__init__()
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        self.layer, self.norm, self.weight_grid = layer, norm, weight
        self.input_grids = () if values is None else (values,)  # a tuple: the network registers each grid once
        self.output_grids = () if output is None else (output,)
        self.frozen = False

    def freeze(self, *, frozen: bool) -> None:
        """Normalise by the running statistics from now on, or by the batch's."""
        self.frozen = frozen
        if self.norm is not None:
            self.norm.train(self.training and not frozen)

    def train(self, mode: bool = True) -> "FakeQuantizedLayer":
        """Set the mode; a frozen norm remains in evaluation mode."""
        super().train(mode)
        self.freeze(frozen=self.frozen)
        return self

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias with the norm's running statistics folded in, not yet rounded."""
        if self.norm is None:
            return self.layer.weight, self.layer.bias
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.running_mean is not None
        factor_O = self._factor()
        shift_O = -norm.running_mean * factor_O if norm.bias is None else norm.bias - norm.running_mean * factor_O
        if self.layer.bias is not None:
            shift_O = shift_O + self.layer.bias * factor_O
        return self.layer.weight * factor_O.reshape(-1, *[1] * (self.layer.weight.ndim - 1)), shift_O

    @property
    def weight(self) -> Tensor:
        """The rounded weight, for networks that read it outside of the layer."""
        weight: Tensor = self.weight_grid(self.folded()[0])
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The bias, likewise."""
        return self.folded()[1]

    def _factor(self) -> Tensor:
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.running_var is not None
        spread_O = torch.sqrt(norm.running_var + norm.eps)
        if norm.weight is None:
            return 1 / spread_O
        # A channel that the norm scales by zero would be divided by zero below.
        gain_O = torch.where(norm.weight.abs() < SMALLEST_GAIN, SMALLEST_GAIN, norm.weight)
        return gain_O / spread_O

    def forward(self, values: Tensor) -> Tensor:
        """Compute the output of the quantized layer, up to the rounding of its bias."""
        for grid in self.input_grids:
            values = grid(values)
        weight, bias = self.folded()
        rounded = self.weight_grid(weight)
        if self.norm is None or not self.norm.training:
            return self._on_grid(self._call(values, rounded, bias))
        factor_O = self._factor()
        output = self._call(values, rounded, None)
        output = output / factor_O.reshape(1, -1, *[1] * (output.ndim - 2))
        if self.layer.bias is not None:
            output = output + self.layer.bias.reshape(1, -1, *[1] * (output.ndim - 2))
        return self._on_grid(self.norm(output))

    def _on_grid(self, output: Tensor) -> Tensor:
        for grid in self.output_grids:
            output = grid(output)
        return output

    def _call(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(self.layer, nn.Conv2d):
            return self.layer._conv_forward(values, weight, bias)
        return nn.functional.linear(values, weight, bias)


class QuantizedModule(nn.Module):
    """A module without weights to learn whose input or output, or both, are rounded to grids."""

    def __init__(self, module: nn.Module, values: InputGrid | None, output: InputGrid | None) -> None:
        super().__init__()
        self.module = module
        self.input_grids = () if values is None else (values,)
        self.output_grids = () if output is None else (output,)

    def forward(self, values: Tensor, *rest: Any) -> Any:
        """Call the module on the rounded input."""
        for grid in self.input_grids:
            values = grid(values)
        output = self.module(values, *rest)
        for grid in self.output_grids:
            output = grid(output)
        return output


class FakeQuantizedNetwork(nn.Module):
    """A network whose layers train on grids; ``unwrap`` returns the network."""

    def __init__(
        self,
        network: nn.Module,
        grids: Mapping[str, WeightGrid],
        activations: Mapping[str, ActivationQuantizer] | None = None,
        norms: Mapping[str, str] | None = None,
    ) -> None:
        """Change ``network`` in place.

        Args:
            network: with its batch norms in place.
            grids: the weights' grids by layer name.
            activations: the calibrated grids of rounded values, by place.
            norms: the batch norm that will be folded into each layer, by layer name.
        """
        super().__init__()
        self.network, self.norms = network, dict(norms or {})
        # Equal grids belong to one value that several modules read; they must keep sharing a step size.
        shared = {quantizer: InputGrid(quantizer) for quantizer in (activations or {}).values()}
        self.grids = nn.ModuleList(shared.values())
        self.input_grids = {name: shared[quantizer] for name, quantizer in (activations or {}).items()}
        self.layers = {name: self._wrapped(name, grid) for name, grid in grids.items()}  # a dict: no submodules
        for name in self.norms.values():
            replace(network, name, nn.Identity())
        for name, layer in self.layers.items():
            replace(network, name, layer)
        others = {name.removesuffix(OUTPUT) for name in self.input_grids} - self.layers.keys()
        self.others = sorted(others, key=lambda name: (-name.count("."), name))  # inner modules first
        for name in self.others:
            values, output = self.input_grids.get(name), self.input_grids.get(name + OUTPUT)
            replace(network, name, QuantizedModule(network.get_submodule(name), values, output))

    def _wrapped(self, name: str, grid: WeightGrid) -> FakeQuantizedLayer:
        norm = self.network.get_submodule(self.norms[name]) if name in self.norms else None
        values, output = self.input_grids.get(name), self.input_grids.get(name + OUTPUT)
        return FakeQuantizedLayer(self.network.get_submodule(name), norm, grid, values, output)

    def parameter_name(self, name: str) -> str:
        """Return the name in this module of the network's parameter ``name``."""
        *modules, leaf = name.split(".")
        path = ["network"]
        for place, module in enumerate(modules):
            path += [module, *(["module"] if ".".join(modules[: place + 1]) in self.others else [])]
        return ".".join([*path, *(["layer"] if ".".join(modules) in self.layers else []), leaf])

    def freeze(self, *, frozen: bool) -> None:
        """Freeze the statistics of the batch norms that will be folded, or let them change."""
        for layer in self.layers.values():
            layer.freeze(frozen=frozen)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the logits, [N, classes]."""
        with layer_by_layer():  # a transformer's fused form reads the float weights
            logits_NK: Tensor = self.network(images_NCHW)
        return logits_NK

    def activations(self) -> dict[str, ActivationQuantizer]:
        """Return the current grids of rounded values, by place."""
        return {name: grid.quantizer() for name, grid in self.input_grids.items()}

    def unwrap(self) -> nn.Module:
        """Return the trained network with its original layers and norms."""
        for name in reversed(self.others):
            wrapped = self.network.get_submodule(name)
            assert isinstance(wrapped, QuantizedModule)
            replace(self.network, name, wrapped.module)
        for name, layer in self.layers.items():
            replace(self.network, name, layer.layer)
            if layer.norm is not None:
                replace(self.network, self.norms[name], layer.norm)
        return self.network
