"""Static quantization after training: integer weights, and activations on grids found by calibration.

Shapes: images [N, C, H, W]; weight [O, I, ...] -> scale [O] or [1]; bias [O].
"""

import copy
import dataclasses
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from kondense.artifacts.equivalence import probes
from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.model import Model, model_probes
from kondense.artifacts.quantized import OUTPUT, ActivationQuantizer, QuantizedTensor, install_quantizers
from kondense.artifacts.structure import open_silus
from kondense.artifacts.ties import owners
from kondense.errors import InputError
from kondense.logging import LOG
from kondense.networks.layers import matching, parse_names
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.context import Context
from kondense.quantize.graph import only_relu_follows, quantizer_places, trace_graph
from kondense.quantize.grid import SMALLEST_PRODUCT, round_to_grid
from kondense.quantize.layers import bits_by_layer, quantizable_layers
from kondense.quantize.products import product_places
from kondense.quantize.residuals import residual_places
from kondense.quantize.static.bias_correction import correct_bias, output_means
from kondense.quantize.static.equalize import equalize as equalize_layers
from kondense.quantize.static.learned_rounding import learn_rounding, record
from kondense.quantize.static.observers import calibration_precision, observe
from kondense.quantize.static.ranges import calibrate
from kondense.quantize.weight_only import weight_scale

METHOD = {
    "name": "static",
    "kind": "activations",
    "summary": "computes on integers, with activation ranges found by calibration",
    "function": "apply",
    "calibrates": True,
    "equalize": True,
    "bias_correction": True,
    "rounding": True,
    "exclude": True,
}
LARGEST_BIAS = 2**30  # largest integer of a bias, half of the range of int32


def apply(model: Model, context: Context) -> Model:
    """Quantize ``model`` with the config's parameters; see ``quantize``."""
    context.summary = summary(context.config)
    return quantize_as(model, context, context.config.bits)


def summary(config: QuantizeConfig, *extras: str) -> str:
    """Return the step in words."""
    options = {"equalised": config.equalize, "learned rounding": config.rounding == "learned"}
    options["biases corrected"] = config.bias_correction
    parts = [config.calibration, *(text for text, chosen in options.items() if chosen), *extras]
    return f"quantize to {config.bits}-bit weights and 8-bit activations ({', '.join(parts)})"


def quantize_as(model: Model, context: Context, bits: int | Mapping[str, int]) -> Model:
    """Quantize ``model`` with the config's parameters but ``bits``, one number or one by layer."""
    config = context.config
    return quantize(
        model,
        context.calibration_batches(),
        bits=bits,
        granularity=config.granularity,
        calibration=config.calibration,
        percentile=config.percentile,
        symmetric=config.activations == "symmetric",
        equalize=config.equalize,
        bias_correction=config.bias_correction,
        rounding_steps=config.rounding_steps if config.rounding == "learned" else 0,
        exclude=matching(model.module, "exclude", parse_names(config.exclude)),
        precision=config.precision,
        seed=config.seed,
    )


def quantize(
    model: Model,
    batches_NCHW: Sequence[Tensor],
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
    precision: str = "auto",
    seed: int = 0,
) -> Model:
    """Return a copy of ``model`` with integer weights and quantized activations.

    Batch norms are folded first. Weights are symmetric int8 within ``bits``, activations uint8 per tensor, and biases
    lie on the grid of int32 accumulators, so that an integer engine computes the same values.

    Args:
        model: a float model.
        batches_NCHW: calibration images, normalised.
        bits: bits per weight, 2 to 8, one number or one by layer. On processors without VNNI some engines add pairs of
            products in 16 bits; 7 bits are safe there. Below 8 bits the largest weights may be clipped.
        granularity: ``channel`` or ``tensor``, of the weights.
        calibration: how the range of an activation is found, one of CALIBRATIONS.
        percentile: share of the values that ``percentile`` calibration keeps, %.
        symmetric: whether the activations' grids have zero in their middle.
        equalize: whether to equalise channels across layers first (``equalize.py``).
        bias_correction: whether to correct biases (``bias_correction.py``).
        rounding_steps: optimizer steps of learned rounding per layer (``learned_rounding.py``); 0: round to nearest.
        exclude: layers to keep in float; their outputs are quantized for the next layers.
        precision: arithmetic of calibration on large images; see ``calibration_precision``.
        seed: of the batches of learned rounding.

    Raises:
        InputError: ``exclude`` names all layers, or calibration has no images or non-finite values.

    Source: Jacob et al. 2018, section 2.
    """
    compared = probes(batches_NCHW[0].shape[1:], batches_NCHW[0]) if batches_NCHW else model_probes(model)
    module = fold_batch_norms(model.module, compared)
    if equalize:
        equalize_layers(module, compared)
    everything, first = quantizable_layers(module), owners(module)
    exclude = {name for name in everything if first[name] in {first[other] for other in exclude if other in first}}
    layers = [name for name in everything if name not in exclude]
    if everything and not layers:
        raise InputError(f"exclude must leave a layer to quantize, but it names all of them: {', '.join(everything)}.")
    # Only these compare with the float network; the copy takes as much memory as the weights.
    reference = copy.deepcopy(module) if bias_correction or rounding_steps else module
    graph = trace_graph(reference, compared)
    places = [name for name in quantizer_places(graph, everything) if name.removesuffix(OUTPUT) not in exclude]
    places += residual_places(graph, places)
    gates, silus = product_places(graph, places)
    for each in (module, reference):
        open_silus(each, silus)
    places += gates
    dtype, counted = calibration_precision(precision), calibration != "minmax"
    watched = {name: _observed(module, name) for name in places}
    observations = observe(module, list(watched.values()), batches_NCHW, histogram=counted, precision=dtype)
    activations = {
        name: calibrate(observations[seen], calibration, percentile=percentile, symmetric=symmetric)
        for name, seen in watched.items()
        if seen in observations
    }
    layers = _that_run(layers, activations)
    install_quantizers(module, activations)
    rounder = Rounder(reference, module, batches_NCHW, rounding_steps, torch.Generator().manual_seed(seed))
    biased = [name for name in layers if bias_correction and module.get_submodule(name).bias is not None]
    means = output_means(reference, biased, batches_NCHW) if biased else {}
    quantized: dict[str, QuantizedTensor] = {}
    by_owner: dict[str, QuantizedTensor] = {}  # tied weights are rounded once
    for name in layers:
        layer, count = module.get_submodule(name), bits_by_layer(module, bits)[name]
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        if first[name] not in by_owner:
            scale = weight_scale(layer.weight, count, granularity)
            for tied in (other for other in layers if first[other] == first[name]):
                scale = accumulator_safe(scale, weighted(module, tied).bias, activations[tied])
            by_owner[first[name]] = rounder.round(name, scale, count, relu=only_relu_follows(graph, name))
        weight = by_owner[first[name]]
        with torch.no_grad():
            layer.weight.copy_(weight.dequantize())
        if name in means:
            correct_bias(module, name, means, batches_NCHW)
        settle_bias(layer, weight, activations[name])
        quantized[f"{name}.weight"] = weight
    return dataclasses.replace(model, module=module, quantized=quantized, activations=activations)


def _observed(module: nn.Module, place: str) -> str:
    """Return the place whose values need a grid at ``place``: a ReLU or Hardtanh clips the others anyway."""
    clips = isinstance(module.get_submodule(place.removesuffix(OUTPUT)), nn.ReLU | nn.Hardtanh)
    return place.removesuffix(OUTPUT) + OUTPUT if clips else place


def _that_run(layers: list[str], activations: Mapping[str, ActivationQuantizer]) -> list[str]:
    """Return the layers that ran in calibration; the others, such as auxiliary heads, remain in float."""
    idle = [name for name in layers if name not in activations]
    if len(idle) == len(layers) and layers:
        raise InputError(f"calibration must run a layer, but the network calls none of {', '.join(layers)} itself.")
    if idle:
        LOG.info(f"layers that the network does not call in evaluation mode remain in float: {', '.join(idle)}.")
    return [name for name in layers if name in activations]


@dataclasses.dataclass(frozen=True)
class Rounder:
    """Rounds weights to their grids: to nearest, or by learned rounding on calibration images."""

    reference: nn.Module
    module: nn.Module
    batches: Sequence[Tensor]  # [N, C, H, W]
    steps: int
    generator: torch.Generator

    def round(self, name: str, scale: Tensor, bits: int, *, relu: bool) -> QuantizedTensor:
        """Return the weight of the layer ``name`` on the grid of ``scale``; the layers before it are quantized."""
        layer = self.module.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        if not self.steps:
            return round_to_grid(layer.weight, scale, bits)
        _, targets = record(self.reference, name, self.batches)
        inputs, _ = record(self.module, name, self.batches)
        return learn_rounding(
            layer, scale, bits, inputs, targets, relu=relu, steps=self.steps, generator=self.generator
        )


def weighted(module: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """Return the convolution or linear layer ``name``."""
    layer = module.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return layer


def accumulator_safe(scale: Tensor, bias_O: Tensor | None, activation: ActivationQuantizer) -> Tensor:
    """Return the scale of a weight, larger where weights are so tiny that the scale of the accumulator would not do.

    That is where a bias would overflow int32, which loses nothing, or the scale itself would be no normal float32.
    """
    scale = scale.clamp(min=SMALLEST_PRODUCT / activation.scale)
    if bias_O is None:
        return scale
    size_O = bias_O.detach().abs()
    needed = (size_O if len(scale) > 1 or len(size_O) == 1 else size_O.amax(0, keepdim=True)) / activation.scale
    return torch.maximum(scale, needed / LARGEST_BIAS)


@torch.no_grad()
def settle_bias(layer: nn.Conv2d | nn.Linear, weight: QuantizedTensor, activation: ActivationQuantizer) -> None:
    """Round the bias of ``layer`` to the grid of the accumulator, in place."""
    if layer.bias is not None:
        step = (weight.scale * activation.scale).double()
        layer.bias.copy_(torch.round(layer.bias.double() / step) * step)
