"""Rate-distortion optimised quantization: the smallest kz file within a bound on the accuracy lost.

Every weight and bias gets the grid point that is best by squared error plus the bits it costs (see ``rate``). How
coarse the grids are is searched: all steps are one factor times a step per tensor that its curvature gives.
Shapes: weight [O, I, ...], bias [O].
"""

import copy
import dataclasses
import functools
import math

import torch
from torch import nn
from torch.nn.utils import parametrize

from kondense.artifacts.model import Model
from kondense.codec.model_file import pack_model
from kondense.errors import InputError
from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, predict
from kondense.quantize.grid import SMALLEST_SCALE
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.rate_distortion.curvature import unit_steps
from kondense.quantize.rate_distortion.export import behind_grid, on_grids, without_dead_channels
from kondense.quantize.rate_distortion.grid import RateGrid, RateObjective
from kondense.quantize.rate_distortion.rate_model import LIMIT
from kondense.quantize.request import Request

FINEST, COARSEST = 2.0**-6, 2.0**4  # factors between which is searched, in root mean square weights
HALVINGS = 9  # of that range, on a logarithmic scale, where nothing is trained
RATE_WEIGHTS = (0.1, 0.3)  # squared steps that a bit is worth: tried where nothing is trained,
TRAINED_RATE_WEIGHT = 0.6  # and where training makes up for what zeros lose
CHOICES = 3  # of the integers, each with the rates that the last one gave
# Of the first trained grids: files 26 to 158 times smaller on LeNets and ResNets of 80k to 430k weights.
FIRST_FACTOR = 2.5
FIRST_SHARE = 0.1  # of their step that they start from
GROWTH = 1.25  # how much coarser or finer the next grids are at most
# Validation accuracy that grids e times as coarse cost, about: .2 to .5 points from 2.5 to 3.1 on LeNets and ResNet-8.
SLOPE = 0.0157
BIAS_FINENESS = 4.0  # how much finer the trained grid of a bias is than that of a weight


@dataclasses.dataclass(frozen=True)
class Trial:
    """A quantized model with what it costs and loses."""

    factor: float
    model: Model
    size_bytes: int
    validation_accuracy: float

    def or_better(self, other: "Trial", lowest: float) -> "Trial":
        """Return the smaller one of those with a validation accuracy of ``lowest``, or else the more accurate one."""
        held = [trial for trial in (self, other) if trial.validation_accuracy >= lowest]
        if held:
            return min(held, key=lambda trial: trial.size_bytes)
        return max((self, other), key=lambda trial: trial.validation_accuracy)


def apply(model: Model, request: Request) -> Model:
    """Return ``model`` with the smallest kz file found whose validation accuracy holds the config's bound.

    Where none does, the most accurate one is returned, and the request's ``shortfalls`` say so.

    The bound is ``max_validation_drop`` below the teacher's validation accuracy, or the model's own without a teacher.
    Without ``fine_tune`` the factor is bisected. With it, a training brings all weights to grids of one step, which
    grow coarser on the way. There are ``rounds`` of them, each of ``epochs`` from ``model`` itself, to grids that are
    as much coarser or finer than the last as the accuracy was above or below the bound. Training on from grids that
    hold would be shorter, but gives larger files. Channels that then do not matter leave.

    Raises:
        ValueError: the model is quantized already, or has no layer to quantize.

    Source: Wiedemann et al. 2020 (DeepCABAC), section 3, for the choice by distortion and rate; Becking et al. 2021
    (ECQ) for training under it. Deviations: curvature per tensor instead of per weight; places are priced by row
    and column, as the codec codes them.
    """
    if model.quantized or model.activations:
        raise InputError("a model must be quantized once, but this one is quantized already.")
    if not quantizable_layers(model.module):
        raise InputError("quantization needs a Conv2d or Linear layer, but the network has none.")
    config = request.config
    reference = (request.teacher or model).module
    lowest = _accuracy(reference, request) - config.max_validation_drop
    steps = unit_steps(model.module, request.calibration_batches(), seed=config.seed)
    found = [_bisect(model, request, steps, weight, lowest) for weight in RATE_WEIGHTS]
    if config.fine_tune:
        found.append(_train(model, request, equal_steps(steps, model.module), lowest))
    best = functools.reduce(lambda one, other: one.or_better(other, lowest), found)
    if best.validation_accuracy < lowest:
        request.shortfalls.append(
            f"max_validation_drop {config.max_validation_drop} was not met: of all grids tried the most accurate has a"
            f" validation accuracy of {best.validation_accuracy:.4f}, below {lowest:.4f}; allow more"
            f"{', or give more rounds or epochs.' if config.fine_tune else ', or fine_tune.'}"
        )
    request.details["rate_distortion"] = {
        "lowest_validation_accuracy": lowest,
        "validation_accuracy": best.validation_accuracy,
        "size_bytes": best.size_bytes,
        "factor": best.factor,
    }
    return best.model


def _bisect(model: Model, request: Request, steps: dict[str, float], rate_weight: float, lowest: float) -> Trial:
    """Return the coarsest quantization without training that holds the bound, or the most accurate if none does."""
    low, high = math.log2(FINEST), math.log2(COARSEST)
    best = None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        module = copy.deepcopy(model.module).eval()
        install(module, steps, rate_weight)
        _coarsen(module, 2.0**middle, steps)
        trial = _trial(2.0**middle, model, module, request, choices=CHOICES)
        if trial.validation_accuracy >= lowest:
            low = middle
        else:
            high = middle
        best = trial if best is None else best.or_better(trial, lowest)
    assert best is not None
    return best


def _train(model: Model, request: Request, steps: dict[str, float], lowest: float) -> Trial:
    """Return the smallest trained quantization that holds the bound, or the most accurate if none does."""
    masks = {behind_grid(name): mask for name, mask in model.masks().items()}
    best = None
    factor = FIRST_FACTOR
    for number in range(1, request.config.rounds + 1):
        module = copy.deepcopy(model.module)
        install(module, steps, TRAINED_RATE_WEIGHT)
        _coarsen(module, factor, steps)
        objective = RateObjective(request.loss, grids(module).values(), FIRST_SHARE)
        request.train(module, f"rate-{number}", loss=objective, masks=masks)
        _coarsen(module, factor, steps)
        trial = _trial(factor, model, module, request, choices=1)
        holds = trial.validation_accuracy >= lowest
        LOG.info(
            f"round {number}/{request.config.rounds} factor={factor:.3f} size_bytes={trial.size_bytes}"
            f" validation_accuracy={trial.validation_accuracy:.4f} ({'holds' if holds else 'breaks'} {lowest:.4f})"
        )
        best = trial if best is None else best.or_better(trial, lowest)
        factor *= _step_towards(trial.validation_accuracy - lowest)
    assert best is not None
    return best


def _step_towards(spare: float) -> float:
    """Return what to multiply a factor by whose validation accuracy is ``spare`` above the bound.

    Where a training ends is partly chance, so that a bracket between one that held and one that broke means little. A
    step that is as long as the accuracy is far from the bound closes in all the same.

    Source: Robbins and Monro 1951. Deviation: steps keep their scale, since rounds are few and the best is kept.
    """
    return min(max(math.exp(spare / SLOPE), 1 / GROWTH), GROWTH)


def equal_steps(steps: dict[str, float], module: nn.Module) -> dict[str, float]:
    """Return one step for all weights, the root mean square of the largest tensor's, and a finer one for biases.

    Training makes up for what a grid costs, wherever that is; zeros then are best chosen by magnitude alone.
    """
    largest = max(steps, key=lambda name: module.get_parameter(name).numel())
    return {name: steps[largest] / (BIAS_FINENESS if name.endswith("bias") else 1.0) for name in steps}


def install(module: nn.Module, steps: dict[str, float], rate_weight: float) -> None:
    """Put a grid on every weight and bias that ``steps`` names, in place."""
    for name in steps:
        owner, _, kind = name.rpartition(".")
        grid = RateGrid(module.get_parameter(name), 1.0, rate_weight)
        # Unsafe skips a forward pass on the weight, which would do no harm.
        parametrize.register_parametrization(module.get_submodule(owner), kind, grid, unsafe=True)


def grids(module: nn.Module) -> dict[str, RateGrid]:
    """Return the grids that ``install`` put on ``module``, by parameter name."""
    return {
        name.replace("parametrizations.", "").removesuffix(".0"): grid
        for name, grid in module.named_modules()
        if isinstance(grid, RateGrid)
    }


def _coarsen(module: nn.Module, factor: float, steps: dict[str, float]) -> None:
    """Set the steps of all grids; those of biases are powers of two, and those of weights bfloat16, to be short.

    No step is so fine that a value would not fit into 8 bits.
    """
    for name, grid in grids(module).items():
        finest = float(module.get_parameter(behind_grid(name)).detach().abs().max()) / (LIMIT - 1)
        step = max(factor * steps[name], finest, SMALLEST_SCALE)
        grid.step = 2.0 ** round(math.log2(step)) if name.endswith("bias") else _short(step)
        if name.endswith("bias") and grid.step < finest:
            grid.step *= 2
        grid.share = 1.0


def _short(value: float) -> float:
    return float(torch.tensor(value).bfloat16())


def _trial(factor: float, model: Model, module: nn.Module, request: Request, *, choices: int) -> Trial:
    quantized = on_grids(model, module, grids(module), choices)
    quantized = without_dead_channels(quantized, request.calibration_batches()[0])
    return Trial(factor, quantized, len(pack_model(quantized)), _accuracy(quantized.module, request))


def _accuracy(module: nn.Module, request: Request) -> float:
    split = request.dataset.validation
    return accuracy(predict(module, split, request.dataset), split.labels)
