"""Rate-distortion optimised quantization: the smallest kz file within a bound on the accuracy lost.

Every weight and bias gets the grid point that is best by squared error plus the bits it costs (see ``rate``). How
coarse the grids are is searched: all steps are one factor times a step per tensor that its curvature gives.
Shapes: weight [O, I, ...], bias [O].
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import parametrize

from components.artifacts.model import Model
from components.artifacts.packed import pack_model
from components.measuring.accuracy import accuracy, predict
from components.quantize.curvature import unit_steps
from components.quantize.grid import SMALLEST_SCALE
from components.quantize.layers import quantizable_layers
from components.quantize.rate import LIMIT
from components.quantize.rate_export import behind_grid, on_grids, without_dead_channels
from components.quantize.rate_grid import RateGrid, RateObjective
from components.quantize.request import Request

FINEST, COARSEST = 2.0**-6, 2.0**4  # factors between which is searched, in root mean square weights
HALVINGS = 9  # of that range, on a logarithmic scale, where nothing is trained
RATE_WEIGHTS = (0.1, 0.3)  # squared steps that a bit is worth: tried where nothing is trained,
TRAINED_RATE_WEIGHT = 0.6  # and where training makes up for what zeros lose
CHOICES = 3  # of the integers, each with the rates that the last one gave
FIRST_FACTOR = 2.3  # of the first trained grids: near what LeNets and ResNet-8 bear without loss
FIRST_SHARE = 0.1  # of their step that they start from
GROWTH = 1.25  # how much coarser or finer the next grids are at most
# Validation accuracy that grids e times as coarse cost, about: .2 to .5 points from 2.5 to 3.1 on LeNets and ResNet-8.
SLOPE = 0.0157
CHANCE = 0.002  # validation accuracy by which trainings of one coarseness differ, about
# Trained grids of linear layers that are not the largest: LeNet-300-100's files get a tenth smaller.
COARSER = 1.4
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

    The bound is ``max_accuracy_drop`` below the teacher's validation accuracy, or the model's own without a teacher.
    Without ``fine_tune`` the factor is bisected. With it, a training brings all weights to grids that grow coarser on
    the way. There are ``rounds`` of them, each of ``epochs`` from ``model`` itself, to grids at which the rounds before
    say that the bound is met. Training on from grids that hold would be shorter, but gives larger files. Channels that
    then do not matter leave.

    Raises:
        ValueError: the model is quantized already, or has no layer to quantize.

    Source: Wiedemann et al. 2020 (DeepCABAC), section 3, for the choice by distortion and rate; Becking et al. 2021
    (ECQ) for training under it. Deviations: curvature per tensor instead of per weight; places are priced by row
    and column, as the codec codes them.
    """
    if model.quantized or model.activations:
        raise ValueError("a model must be quantized once, but this one is quantized already.")
    if not quantizable_layers(model.module):
        raise ValueError("quantization needs a Conv2d or Linear layer, but the network has none.")
    config = request.config
    reference = (request.teacher or model).module
    lowest = _accuracy(reference, request) - config.max_accuracy_drop
    steps = unit_steps(model.module, request.calibration_batches(), seed=config.seed)
    found = [_bisect(model, request, steps, weight, lowest) for weight in RATE_WEIGHTS]
    if config.fine_tune:
        found.append(_train(model, request, trained_steps(steps, model.module), lowest))
    best = functools.reduce(lambda one, other: one.or_better(other, lowest), found)
    if best.validation_accuracy < lowest:
        request.shortfalls.append(
            f"max_accuracy_drop {config.max_accuracy_drop} was not met: of all grids tried the most accurate has a"
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
    best, tried = None, []
    factor = FIRST_FACTOR
    for number in range(1, request.config.rounds + 1):
        module = copy.deepcopy(model.module)
        install(module, steps, TRAINED_RATE_WEIGHT)
        _coarsen(module, factor, steps)
        objective = RateObjective(request.loss, grids(module).values(), FIRST_SHARE)
        request.train(module, f"rate-{number}", loss=objective, masks=masks)
        _coarsen(module, factor, steps)
        trial = _trial(factor, model, module, request, choices=1)
        spare = trial.validation_accuracy - lowest
        print(
            f"round {number}/{request.config.rounds} factor={factor:.3f} size_bytes={trial.size_bytes}"
            f" validation_accuracy={trial.validation_accuracy:.4f} ({'holds' if spare >= 0 else 'breaks'} {lowest:.4f})"
        )
        best = trial if best is None else best.or_better(trial, lowest)
        tried.append((factor, spare))
        factor = _next_factor(tried)
    assert best is not None
    return best


def _next_factor(tried: Sequence[tuple[float, float]]) -> float:
    """Return the factor that is likely to meet the bound exactly, at most ``GROWTH`` from the last one.

    Where a training ends is partly chance, so that a bracket between one that held and one that broke means little.
    Each tells where the bound would be met, if accuracy fell along ``SLOPE`` from it, within ``GROWTH``; their mean is
    less noisy. As long as all lie on one side of the bound the last one counts alone. Until one holds, the aim is above
    the bound, by as much as chance usually reaches and more with every training.

    Args:
        tried: factors, and how far above the bound the validation accuracy was.

    Source: Robbins and Monro 1951, with the steps 1 / n that are best where the slope is known.
    """
    holds = [spare >= 0 for _, spare in tried]
    aim = 0.0 if any(holds) else CHANCE * len(tried)
    counted = tried if any(holds) and not all(holds) else tried[-1:]
    longest = math.log(GROWTH)
    met = [math.log(factor) + min(max((spare - aim) / SLOPE, -longest), longest) for factor, spare in counted]
    last = tried[-1][0]
    return min(max(math.exp(sum(met) / len(met)), last / GROWTH), last * GROWTH)


def trained_steps(steps: dict[str, float], module: nn.Module) -> dict[str, float]:
    """Return the step of the largest tensor's weights for all, a coarser one in other linear layers, finer for biases.

    Training makes up for what a grid costs, wherever that is, so curvature has no say here. A convolution's weights
    count more, since each is used at many places.
    """
    largest = max(steps, key=lambda name: module.get_parameter(name).numel()).rpartition(".")[0]
    trained = {}
    for name in steps:
        owner, _, kind = name.rpartition(".")
        coarser = COARSER if isinstance(module.get_submodule(owner), nn.Linear) and owner != largest else 1.0
        trained[name] = steps[f"{largest}.weight"] * coarser / (BIAS_FINENESS if kind == "bias" else 1.0)
    return trained


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
