"""The most that can be pruned while the accuracy stays within a bound."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn

from kondense.errors import InputError
from kondense.logging import LOG
from kondense.prune.batch_norm import reestimate
from kondense.prune.method import Method
from kondense.prune.metrics import validation_accuracy
from kondense.prune.request import Request

HALVINGS = 5  # 32nds of the sparsity asked for


def floor_of(request: Request, module: nn.Module, teacher: nn.Module | None) -> float:
    """Return the least validation accuracy that ``max_validation_drop`` allows; 0 where it sets no bound.

    It is counted from the teacher's accuracy where there is a teacher, else from that of the model itself.

    Raises:
        ValueError: the unpruned model lies below it already.
    """
    drop = request.config.max_validation_drop
    if drop >= 1.0:
        return 0.0
    own = validation_accuracy(module, request.dataset, request.device)
    reference = own if teacher is None else validation_accuracy(teacher, request.dataset, request.device)
    if own < reference - drop:
        raise InputError(
            f"max_validation_drop must be at least {reference - own:.4f}, by which the unpruned model lies below its"
            f" teacher (validation accuracy {own:.4f} and {reference:.4f}), but got {drop}."
        )
    return reference - drop


def shortfall_of(request: Request, validation_accuracy: float) -> str:
    """Say that the fine-tuned network lies below the bound, where it does."""
    if validation_accuracy >= request.floor:
        return ""
    return (
        f"max_validation_drop {request.config.max_validation_drop} was not met: after fine-tuning, a validation accuracy of"
        f" {validation_accuracy:.4f} lies below {request.floor:.4f}."
    )


def largest_sparsity(
    prepare: Callable[[nn.Module, Request], Method], module: nn.Module, request: Request
) -> tuple[float, list[dict[str, Any]]]:
    """Return the largest sparsity, at most that of the request, at which the accuracy stays above ``request.floor``.

    Each amount is tried on a copy: pruned in one step, batch norms re-estimated, fine-tuned for ``trial_epochs``
    (on top of the budget of epochs, and thrown away), measured on the validation split.

    Args:
        prepare: the method's.
        module: the network; left as it is.
        request: the whole request; its sparsity is the upper end.

    Returns:
        The sparsity, 0 where none holds, and every trial: ``sparsity`` and ``validation_accuracy``.
    """
    trials: list[dict[str, Any]] = []

    def holds(sparsity: float) -> bool:
        asked = dataclasses.replace(request, config=dataclasses.replace(request.config, sparsity=sparsity))
        found = tried_accuracy(prepare, module, asked, f"bound-{len(trials)}")
        trials.append({"sparsity": sparsity, "validation_accuracy": found})
        LOG.info(f"sparsity={sparsity:.4f} validation_accuracy={found:.4f} floor={request.floor:.4f}")
        return found >= request.floor

    low, high = 0.0, request.config.sparsity
    if holds(high):
        return high, trials
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, trials


def tried_accuracy(
    prepare: Callable[[nn.Module, Request], Method], module: nn.Module, request: Request, name: str
) -> float:
    """Return the validation accuracy of a copy of ``module`` pruned in one step and repaired; nothing is kept."""
    trial = copy.deepcopy(module)
    masks = prepare(trial, request).step(1.0)
    reestimate(trial, request.dataset, seed=request.config.seed, device=request.device)
    if request.config.trial_epochs:
        return request.tune(trial, name, request.config.trial_epochs, masks=masks, counted=False)
    return validation_accuracy(trial, request.dataset, request.device)
