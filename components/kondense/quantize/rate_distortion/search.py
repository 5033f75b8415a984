"""Rate-distortion optimised quantization: the smallest kz file within a bound on the accuracy drop.

Every weight and bias gets the grid point that is best by squared error plus its cost in bits (see ``rate_model``). The
search is over the coarseness of the grids: every step size is one common factor times a step per tensor that follows
from its curvature. Shapes: weight [O, I, ...], bias [O].
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize

from kondense.artifacts.model import Model
from kondense.codec.model_file import pack_model
from kondense.logging import LOG
from kondense.quantize.context import Context
from kondense.quantize.grid import SMALLEST_SCALE
from kondense.quantize.rate_distortion.curvature import unit_steps
from kondense.quantize.rate_distortion.export import on_grids, parameter_behind, without_dead_channels
from kondense.quantize.rate_distortion.grid import RateGrid, RateObjective
from kondense.quantize.rate_distortion.rate_model import LIMIT

METHOD = {
    "name": "rate_distortion",
    "kind": "weights",
    "summary": "finds the smallest kz file within max_validation_drop",
    "function": "apply",
    "calibrates": True,
    "fine_tune": True,
    "step": "pack_weights",
}
FINEST, COARSEST = 2.0**-6, 2.0**4  # range of the factor, in root mean square weights
HALVINGS = 9  # of that range, on a logarithmic scale, without training
RATE_WEIGHTS = (0.1, 0.3)  # squared steps per bit: candidates without training,
TRAINED_RATE_WEIGHT = 0.6  # and with training, which recovers what zeros lose
CHOICES = 3  # of the integers, each with the rates of the last choice
# Factor of the first training: files 26 to 158 times smaller on LeNets and ResNets of 80k to 430k weights.
FIRST_FACTOR = 2.5
FIRST_SHARE = 0.1  # of the step size at the start of a training
GROWTH = 1.25  # largest change of the factor from one training to the next
# Approximate drop in validation accuracy per factor e: 0.2 to 0.5 points from 2.5 to 3.1 on LeNets and ResNet-8.
SLOPE = 0.0157
BIAS_FINENESS = 4.0  # step size of a trained weight relative to that of a bias


@dataclasses.dataclass(frozen=True)
class Trial:
    """A quantized model with its size and accuracy."""

    factor: float
    model: Model
    size_bytes: int
    validation_accuracy: float

    def or_better(self, other: "Trial", lowest: float) -> "Trial":
        """Return the smaller trial with a validation accuracy of ``lowest``, or else the more accurate one."""
        accurate = [trial for trial in (self, other) if trial.validation_accuracy >= lowest]
        if accurate:
            return min(accurate, key=lambda trial: trial.size_bytes)
        return max((self, other), key=lambda trial: trial.validation_accuracy)


def apply(model: Model, context: Context) -> Model:
    """Return ``model`` as the smallest kz file whose validation accuracy is within the bound.

    If there is none, the most accurate model is returned, with a shortfall.

    The bound is ``max_validation_drop`` below the validation accuracy of the teacher, or of the model if there is none.
    Without ``fine_tune`` the factor is bisected. With it, training moves all weights to grids of one step size, which
    grow coarser meanwhile. There are ``rounds`` trainings of ``epochs``, each from ``model`` itself, to grids that are
    coarser or finer than the last ones by how far the accuracy was above or below the bound. To continue a training
    would be shorter, but gives larger files. Channels that no longer matter are removed.

    Source: Wiedemann et al. 2020 (DeepCABAC), section 3, for the choice by distortion and rate; Becking et al. 2021
    (ECQ) for training with it. Deviations: curvature per tensor instead of per weight; the cost of a non-zero is by row
    and column, as in the codec.
    """
    config = context.config
    context.summary = f"find the smallest file that loses at most {config.max_validation_drop:.2%}"
    lowest = context.validation_accuracy((context.teacher or model).module) - config.max_validation_drop
    steps = unit_steps(model.module, context.calibration_batches(), seed=config.seed)
    trials = [_bisect(model, context, steps, rate_weight, lowest) for rate_weight in RATE_WEIGHTS]
    if config.fine_tune:
        trials.append(_train(model, context, equal_steps(steps, model.module), lowest))
    best = functools.reduce(lambda one, other: one.or_better(other, lowest), trials)
    if best.validation_accuracy < lowest:
        remedy = "more rounds or epochs" if config.fine_tune else "fine_tune"
        context.shortfall = (
            f"max_validation_drop {config.max_validation_drop} was not met: the most accurate of all grids has a"
            f" validation accuracy of {best.validation_accuracy:.4f}, below {lowest:.4f}; allow a larger drop, or"
            f" {remedy}."
        )
    context.details["rate_distortion"] = {
        "lowest_validation_accuracy": lowest,
        "validation_accuracy": best.validation_accuracy,
        "size_bytes": best.size_bytes,
        "factor": best.factor,
    }
    return best.model


def _bisect(model: Model, context: Context, steps: dict[str, float], rate_weight: float, lowest: float) -> Trial:
    """Return the smallest quantization without training within the bound, or else the most accurate one."""
    low, high = math.log2(FINEST), math.log2(COARSEST)
    best = None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        module = copy.deepcopy(model.module).eval()
        install(module, steps, rate_weight)
        _coarsen(module, 2.0**middle, steps)
        trial = _trial(2.0**middle, model, module, context, choices=CHOICES)
        if trial.validation_accuracy >= lowest:
            low = middle
        else:
            high = middle
        best = trial if best is None else best.or_better(trial, lowest)
    assert best is not None
    return best


def _train(
    model: Model,
    context: Context,
    steps: dict[str, float],
    lowest: float,
    evaluate: Callable[..., Trial] | None = None,
) -> Trial:
    """Return the smallest trained quantization within the bound, or else the most accurate one."""
    masks = {parameter_behind(name): mask for name, mask in model.masks().items()}
    best = None
    factor = FIRST_FACTOR
    for number in range(1, context.config.rounds + 1):
        module = copy.deepcopy(model.module)
        install(module, steps, TRAINED_RATE_WEIGHT)
        _coarsen(module, factor, steps)
        objective = RateObjective(context.session.loss, grids(module).values(), FIRST_SHARE)
        context.train(module, f"rate-{number}", loss=objective, masks=masks)
        _coarsen(module, factor, steps)
        trial = (evaluate or _trial)(factor, model, module, context, choices=1)
        LOG.info(
            f"round {number}/{context.config.rounds} factor={factor:.3f} size_bytes={trial.size_bytes}"
            f" validation_accuracy={trial.validation_accuracy:.4f} (bound {lowest:.4f})"
        )
        best = trial if best is None else best.or_better(trial, lowest)
        factor *= _growth(trial.validation_accuracy - lowest)
    assert best is not None
    return best


def _growth(margin: float) -> float:
    """Return the ratio of the next factor to the last, given its validation accuracy minus the bound.

    The accuracy after training is noisy, so that bisection would be misled. Steps proportional to the distance from the
    bound converge all the same.

    Source: Robbins and Monro 1951. Deviation: steps of constant scale, since rounds are few and the best is kept.
    """
    return min(max(math.exp(margin / SLOPE), 1 / GROWTH), GROWTH)


def equal_steps(steps: dict[str, float], module: nn.Module) -> dict[str, float]:
    """Return one step size for all weights, that of the largest tensor, and a finer one for biases.

    Training recovers from the error of a grid in any tensor, so zeros are best chosen by magnitude alone.
    """
    largest = max(steps, key=lambda name: module.get_parameter(name).numel())
    return {name: steps[largest] / (BIAS_FINENESS if name.endswith("bias") else 1.0) for name in steps}


def install(module: nn.Module, steps: dict[str, float], rate_weight: float) -> None:
    """Put a grid on every weight and bias in ``steps``, in place."""
    for name in steps:
        owner, _, kind = name.rpartition(".")
        grid = RateGrid(module.get_parameter(name), 1.0, rate_weight)
        # Unsafe skips a forward pass on the weight.
        parametrize.register_parametrization(module.get_submodule(owner), kind, grid, unsafe=True)


def grids(module: nn.Module) -> dict[str, RateGrid]:
    """Return the grids of ``module``, by parameter name."""
    return {
        name.replace("parametrizations.", "").removesuffix(".0"): grid
        for name, grid in module.named_modules()
        if isinstance(grid, RateGrid)
    }


def _coarsen(module: nn.Module, factor: float, steps: dict[str, float]) -> None:
    """Set the step sizes of all grids: powers of two for biases and bfloat16 for weights, which take few bytes.

    A step is at least so large that all values fit into 8 bits.
    """
    for name, grid in grids(module).items():
        finest = float(module.get_parameter(parameter_behind(name)).detach().abs().max()) / (LIMIT - 1)
        step = max(factor * steps[name], finest, SMALLEST_SCALE)
        grid.step = 2.0 ** round(math.log2(step)) if name.endswith("bias") else _short(step)
        if name.endswith("bias") and grid.step < finest:
            grid.step *= 2
        grid.share = 1.0


def _short(value: float) -> float:
    return float(torch.tensor(value).bfloat16())


def _trial(factor: float, model: Model, module: nn.Module, context: Context, *, choices: int) -> Trial:
    quantized = on_grids(model, module, grids(module), choices)
    quantized = without_dead_channels(quantized, context.calibration_batches()[0])
    return Trial(factor, quantized, len(pack_model(quantized)), context.validation_accuracy(quantized.module))
