"""Static quantization after training: integer weights, and activations on grids found by calibration.

Shapes: images [N, C, H, W]; weight [O, I, ...] -> scale [O] or [1]; bias [O].
"""

import copy
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.model import Model
from kondense.artifacts.quantized import ActivationQuantizer, QuantizedTensor, install_quantizers
from kondense.errors import InputError
from kondense.networks.layers import matching, parse_names
from kondense.quantize.grid import largest_scale, round_to_grid
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.points import quantization_points
from kondense.quantize.request import Request
from kondense.quantize.static.bias_correction import correct_bias, output_means
from kondense.quantize.static.equalize import equalize as equalize_layers
from kondense.quantize.static.learned_rounding import learn_rounding, record
from kondense.quantize.static.observers import observe
from kondense.quantize.static.ranges import calibrate
from kondense.quantize.successors import meets_relu, trace_flow
from kondense.quantize.weight_only import least_error_scale

LARGEST_BIAS = 2**30  # integers of a bias stay below this, half of what int32 holds


def apply(model: Model, request: Request) -> Model:
    """Quantize ``model`` as the request's config says; see ``quantize``."""
    return quantize_as(model, request, request.config.bits)


def quantize_as(model: Model, request: Request, bits: int | Mapping[str, int]) -> Model:
    """Quantize ``model`` as the request's config says, but with these bits, one number or one by layer."""
    config = request.config
    excluded = matching(model.module, "exclude", parse_names(config.exclude))
    return quantize(
        model,
        request.calibration_batches(),
        bits=bits,
        granularity=config.granularity,
        calibration=config.calibration,
        percentile=config.percentile,
        symmetric=config.activations == "symmetric",
        equalize=config.equalize,
        bias_correction=config.bias_correction,
        rounding_steps=config.rounding_steps if config.rounding == "learned" else 0,
        exclude=excluded,
        seed=config.seed,
    )


def quantize(
    model: Model,
    batches_NCHW: Iterable[Tensor],
    *,
    bits: int | Mapping[str, int] = 8,
    granularity: str = "channel",
    calibration: str = "minmax",
    percentile: float = 99.99,
    symmetric: bool = False,
    equalize: bool = False,
    bias_correction: bool = False,
    rounding_steps: int = 0,
    exclude: Collection[str] = (),
    seed: int = 0,
) -> Model:
    """Return ``model`` with integer weights and quantized activations; it is left as it was.

    Batch norms are folded first. Weights are symmetric int8 within ``bits``, activations uint8 per tensor, and
    biases lie on the grid of int32 accumulators, so that an integer engine computes the very same.

    Args:
        model: a float model.
        batches_NCHW: calibration images, normalised.
        bits: of the weights, 2 to 8, one number or one by layer. On processors without VNNI some engines add
            pairs of products in 16 bits; 7 bits are safe there. Below 8 bits the largest weights may be clipped.
        granularity: ``channel`` or ``tensor``, of the weights.
        calibration: how to find the range of an activation, one of CALIBRATIONS.
        percentile: of the values that ``percentile`` calibration keeps.
        symmetric: whether zero lies in the middle of the activations' grids.
        equalize: whether to equalise channels across layers first (``equalize.py``).
        bias_correction: whether to take mean errors out of the outputs (``bias_correction.py``).
        rounding_steps: of learning how to round, per layer (``learned_rounding.py``); to the nearest when 0.
        exclude: layers that stay in float; what they pass on is quantized all the same, for the layers behind them.
        seed: of the rounding's batches.

    Raises:
        ValueError: the model is quantized already, ``exclude`` leaves no layer, or calibration meets no image or no
            finite values.

    Source: Jacob et al. 2018, section 2.
    """
    if model.quantized or model.activations:
        raise InputError("a model must be quantized once, but this one is quantized already.")
    batches = list(batches_NCHW)
    module = fold_batch_norms(model.module)
    if equalize:
        equalize_layers(module)
    everything = quantizable_layers(module)
    layers = [name for name in everything if name not in exclude]
    if everything and not layers:
        raise InputError(f"exclude must leave a layer to quantize, but it names all of them: {', '.join(everything)}.")
    points = [name for name in quantization_points(module, everything) if name not in exclude]
    observations = observe(module, points, batches)
    activations = {
        name: calibrate(observation, calibration, percentile=percentile, symmetric=symmetric)
        for name, observation in observations.items()
    }
    reference = copy.deepcopy(module)
    install_quantizers(module, activations)
    rounder = Rounder(reference, module, batches, rounding_steps, torch.Generator().manual_seed(seed))
    biased = [name for name in layers if bias_correction and module.get_submodule(name).bias is not None]
    means = output_means(reference, biased, batches) if biased else {}
    quantized = {}
    for name in layers:
        layer, layer_bits = module.get_submodule(name), bits if isinstance(bits, int) else bits[name]
        scale = weight_scale(layer, layer_bits, granularity, activations[name])
        weight = rounder.round(name, scale, layer_bits)
        with torch.no_grad():
            layer.weight.copy_(weight.dequantize())
        if name in means:
            correct_bias(module, name, means, batches)
        settle_bias(layer, weight, activations[name])
        quantized[f"{name}.weight"] = weight
    return dataclasses.replace(model, module=module, quantized=quantized, activations=activations)


@dataclasses.dataclass(frozen=True)
class Rounder:
    """Puts weights on grids: to the nearest point, or as it learns on calibration images."""

    reference: nn.Module
    module: nn.Module
    batches: Sequence[Tensor]  # [N, C, H, W]
    steps: int
    generator: torch.Generator

    def round(self, name: str, scale: Tensor, bits: int) -> QuantizedTensor:
        """Return the weight of the layer ``name`` on the grid of ``scale``; the layers before it are quantized."""
        layer = self.module.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        if not self.steps:
            return round_to_grid(layer.weight, scale, bits)
        _, targets = record(self.reference, name, self.batches)
        inputs, _ = record(self.module, name, self.batches)
        relu = meets_relu(name, trace_flow(self.reference))
        return learn_rounding(
            layer, scale, bits, inputs, targets, relu=relu, steps=self.steps, generator=self.generator
        )


def weight_scale(layer: nn.Module, bits: int, granularity: str, activation: ActivationQuantizer) -> Tensor:
    """Return the scale of a layer's weight, [O] or [1]: nothing is clipped at 8 bits, below the error counts."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    find = largest_scale if bits == 8 else least_error_scale
    return bias_safe(find(layer.weight, bits, granularity), layer.bias, activation)


def bias_safe(scale: Tensor, bias_O: Tensor | None, activation: ActivationQuantizer) -> Tensor:
    """Return ``scale``, coarser where a channel of tiny weights would push its bias out of int32; it loses nothing."""
    if bias_O is None:
        return scale
    reach_O = bias_O.detach().abs()
    needed = (reach_O if len(scale) > 1 or len(reach_O) == 1 else reach_O.amax(0, keepdim=True)) / activation.scale
    return torch.maximum(scale, needed / LARGEST_BIAS)


@torch.no_grad()
def settle_bias(layer: nn.Module, weight: QuantizedTensor, activation: ActivationQuantizer) -> None:
    """Round the bias of ``layer`` in place to the grid of the accumulator."""
    if layer.bias is not None:
        step = (weight.scale * activation.scale).double()
        layer.bias.copy_(torch.round(layer.bias.double() / step) * step)
