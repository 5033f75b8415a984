"""The largest sparsity whose accuracy stays within a bound."""

import copy
import dataclasses
from typing import Any

from torch import nn

from kondense.errors import InputError
from kondense.logging import LOG
from kondense.prune.batch_norm import reestimate
from kondense.prune.context import Context
from kondense.prune.metrics import validation_accuracy
from kondense.prune.pruner import Prepare

HALVINGS = 5  # down to 1/32 of the requested sparsity


def floor_of(context: Context, module: nn.Module, teacher: nn.Module | None) -> float:
    """Return the least validation accuracy that ``max_validation_drop`` allows; 0 if it sets no bound.

    The reference is the accuracy of the teacher if there is one, else of the model itself.

    Raises:
        InputError: the unpruned model is below the floor already.
    """
    drop = context.config.max_validation_drop
    if drop >= 1.0:
        return 0.0
    unpruned = validation_accuracy(module, context.dataset, context.device)
    reference = unpruned if teacher is None else validation_accuracy(teacher, context.dataset, context.device)
    if unpruned < reference - drop:
        raise InputError(
            f"max_validation_drop must be at least {reference - unpruned:.4f}, the gap between the unpruned model and"
            f" its teacher (validation accuracy {unpruned:.4f} and {reference:.4f}), but got {drop}."
        )
    return reference - drop


def shortfall_of(context: Context, validation_accuracy: float) -> str:
    """Return why the fine-tuned network breaks the bound, or an empty string."""
    if validation_accuracy >= context.floor:
        return ""
    return (
        f"max_validation_drop {context.config.max_validation_drop} was not met: after fine-tuning, the validation"
        f" accuracy is {validation_accuracy:.4f}, below {context.floor:.4f}."
    )


def largest_sparsity(prepare: Prepare, module: nn.Module, context: Context) -> tuple[float, list[dict[str, Any]]]:
    """Return the largest sparsity, up to the requested one, whose accuracy is at least ``context.floor``.

    Every trial works on a copy: prune in one step, re-estimate batch norms, fine-tune for ``trial_epochs`` (in
    addition to the budget of epochs), measure on the validation split.

    Args:
        prepare: prepares the method.
        module: the network; not changed.
        context: the request; its sparsity is the upper end.

    Returns:
        The sparsity, 0 if no trial met the floor, and all trials: ``sparsity`` and ``validation_accuracy``.
    """
    trials: list[dict[str, Any]] = []

    def holds(sparsity: float) -> bool:
        trial = dataclasses.replace(context, config=dataclasses.replace(context.config, sparsity=sparsity))
        accuracy = tried_accuracy(prepare, module, trial, f"bound-{len(trials)}")
        trials.append({"sparsity": sparsity, "validation_accuracy": accuracy})
        LOG.info(f"sparsity={sparsity:.4f} validation_accuracy={accuracy:.4f} floor={context.floor:.4f}")
        return accuracy >= context.floor

    low, high = 0.0, context.config.sparsity
    if holds(high):
        return high, trials
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, trials


def tried_accuracy(prepare: Prepare, module: nn.Module, context: Context, phase: str) -> float:
    """Return the validation accuracy of a copy of ``module`` that is pruned in one step and repaired."""
    trial, config = copy.deepcopy(module), context.config
    masks = prepare(trial, context).step(1.0)
    reestimate(trial, context.dataset, seed=config.seed, device=context.device)
    if config.trial_epochs:
        return context.session.train(trial, phase, epochs=config.trial_epochs, masks=masks, counted=False)
    return validation_accuracy(trial, context.dataset, context.device)
