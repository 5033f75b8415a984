"""Drives a method through its budget of epochs: in steps with fine-tuning after each, or within one run of training."""

import copy

import torch
from torch import nn

from kondense.logging import LOG
from kondense.networks.build import NetworkSpec, check_images
from kondense.prune.batch_norm import reestimate
from kondense.prune.config import PruneConfig
from kondense.prune.method import Masks, Method
from kondense.prune.metrics import validation_accuracy
from kondense.prune.request import Request
from kondense.prune.schedule import Ramp, shares
from kondense.training.masking import Masking

Steps = list[dict[str, float]]  # per step (or epoch): sparsity reached, accuracy before (untuned) and after tuning


def drive(module: nn.Module, method: Method, request: Request, network: NetworkSpec) -> tuple[Masks, Steps]:
    """Prune and fine-tune ``module`` in place.

    Args:
        module: what ``method`` was prepared for.
        method: says what goes.
        request: how far, and the budget.
        network: what the module was built as, to check that images still fit.

    Returns:
        The masks that hold, and a figure per step.
    """
    ramp = _ramp(request.config, method.own_epochs())
    masking = method.masking(ramp) if request.config.pruning_schedule != "one_shot" else None
    if masking is None:
        masks, history = _in_steps(module, method, request, network)
    else:
        masks, history = _within_a_run(module, method, request, ramp, masking)
    final = method.finish()
    masks = masks if final is None else final
    with torch.no_grad():
        for name, mask in masks.items():  # a weight times a mask may be -0.0, which packs worse than 0.0
            module.get_parameter(name).masked_fill_(~mask, 0.0)
    return masks, history


def _in_steps(module: nn.Module, method: Method, request: Request, network: NetworkSpec) -> tuple[Masks, Steps]:
    config, own = request.config, method.own_epochs()
    steps = method.steps(config.steps, config.epochs - own) if config.pruning_schedule != "one_shot" else 1
    sparsity = method.sparsity(config.sparsity)
    epochs, horizons = (method.epochs_by_step(count - own, steps) for count in (config.epochs, config.horizon))
    history: Steps = []
    masks: Masks = {}
    for number, share in enumerate(shares(config.pruning_schedule, steps), start=1):
        masks = method.step(share)
        check_images("the pruned network", module, request.dataset.shape, len(request.dataset.classes))
        untuned = _reestimated_accuracy(module, request)
        LOG.info(f"step {number}/{steps} sparsity={share * sparsity:.4f} validation_accuracy={untuned:.4f}")
        # A run that makes fewer steps is another run, and must not meet this one's checkpoints.
        phase, loss, horizon = f"step-{number}-of-{steps}", method.loss(request.loss), horizons[number - 1]
        tuned = request.tune(module, phase, epochs[number - 1], horizon=horizon, loss=loss, masks=masks)
        method.tuned(share, tuned)
        history.append({"sparsity": share * sparsity, "untuned": untuned, "validation_accuracy": tuned})
    return masks, history


def _within_a_run(
    module: nn.Module, method: Method, request: Request, ramp: Ramp, masking: Masking
) -> tuple[Masks, Steps]:
    config, own = request.config, method.own_epochs()
    before, kept = copy.deepcopy(module.state_dict()), request.masks(module)
    names = method.step(1.0)
    untuned = _reestimated_accuracy(module, request)
    module.load_state_dict(before)
    sparsity = method.sparsity(config.sparsity)
    LOG.info(f"sparsity={sparsity:.4f} at once: validation_accuracy={untuned:.4f}")
    first, loss = len(request.curve), method.loss(request.loss)
    phase, horizon = f"ramp-{ramp.epochs:g}", config.horizon - own
    request.tune(module, phase, config.epochs - own, horizon=horizon, loss=loss, masks=kept, masking=masking)
    method.tuned(1.0, _reestimated_accuracy(module, request))
    return {name: module.get_parameter(name).detach() != 0 for name in names}, [
        {
            "sparsity": ramp.share(number) * sparsity,
            "untuned": untuned,
            "validation_accuracy": point["validation_accuracy"],
        }
        for number, point in enumerate(request.curve[first:], start=1)
    ]


def _reestimated_accuracy(module: nn.Module, request: Request) -> float:
    reestimate(module, request.dataset, seed=request.config.seed, device=request.device)
    return validation_accuracy(module, request.dataset, request.device)


def _ramp(config: PruneConfig, own_epochs: int) -> Ramp:
    """Return the ramp of a run; one that a shorter run does not see the end of is shortened with it."""
    epochs, horizon = config.epochs - own_epochs, config.horizon - own_epochs
    length = config.pruning_end * horizon
    return Ramp(config.pruning_schedule, length if length <= epochs else config.pruning_end * epochs, config.steps)
