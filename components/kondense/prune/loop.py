"""The loop of iterative pruning: steps with fine-tuning after each, or one training run that prunes gradually."""

import copy

from torch import nn

from kondense.logging import LOG
from kondense.networks.build import check_images
from kondense.prune.batch_norm import reestimate
from kondense.prune.config import PruneConfig
from kondense.prune.context import Context
from kondense.prune.metrics import validation_accuracy
from kondense.prune.pruner import Masks, Pruner
from kondense.prune.schedule import Ramp, shares
from kondense.training.masking import Masking, zero_masked

Steps = list[dict[str, float]]  # per step (or epoch): sparsity, accuracy before (untuned) and after fine-tuning


def iterate(module: nn.Module, pruner: Pruner, context: Context) -> tuple[Masks, Steps]:
    """Prune and fine-tune ``module`` in place.

    Args:
        module: the network that ``pruner`` was prepared for.
        pruner: the method.
        context: the request and the budget of epochs.

    Returns:
        The final masks, and the figures of every step.
    """
    ramp = _ramp(context.config, pruner.own_epochs())
    masking = pruner.masking(ramp) if context.config.pruning_schedule != "one_shot" else None
    if masking is None:
        masks, history = _in_steps(module, pruner, context)
    else:
        masks, history = _within_a_run(module, pruner, context, ramp, masking)
    final = pruner.finish()
    masks = masks if final is None else final
    zero_masked(module, masks)
    return masks, history


def _in_steps(module: nn.Module, pruner: Pruner, context: Context) -> tuple[Masks, Steps]:
    config, session, own = context.config, context.session, pruner.own_epochs()
    steps = pruner.steps(config.steps, config.epochs - own) if config.pruning_schedule != "one_shot" else 1
    sparsity = pruner.sparsity(config.sparsity)
    epochs, horizons = (pruner.epochs_by_step(count - own, steps) for count in (config.epochs, config.horizon))
    history: Steps = []
    masks: Masks = {}
    for number, share in enumerate(shares(config.pruning_schedule, steps), start=1):
        masks = pruner.step(share)
        check_images("the pruned network", module, context.dataset.shape, len(context.dataset.classes))
        untuned = _reestimated_accuracy(module, context)
        LOG.info(f"step {number}/{steps} sparsity={share * sparsity:.4f} validation_accuracy={untuned:.4f}")
        # A run that makes fewer steps is another run, and must not meet this one's checkpoints.
        phase, loss, horizon = f"step-{number}-of-{steps}", pruner.loss(session.loss), horizons[number - 1]
        tuned = session.train(module, phase, epochs=epochs[number - 1], horizon=horizon, loss=loss, masks=masks)
        pruner.tuned(share, tuned)
        history.append({"sparsity": share * sparsity, "untuned": untuned, "validation_accuracy": tuned})
    return masks, history


def _within_a_run(
    module: nn.Module, pruner: Pruner, context: Context, ramp: Ramp, masking: Masking
) -> tuple[Masks, Steps]:
    config, session, own = context.config, context.session, pruner.own_epochs()
    before, kept = copy.deepcopy(module.state_dict()), context.masks(module)
    names = pruner.step(1.0)
    untuned = _reestimated_accuracy(module, context)
    module.load_state_dict(before)
    sparsity = pruner.sparsity(config.sparsity)
    LOG.info(f"sparsity={sparsity:.4f} at once: validation_accuracy={untuned:.4f}")
    first, loss = len(session.curve), pruner.loss(session.loss)
    session.train(
        module,
        f"ramp-{ramp.epochs:g}",
        epochs=config.epochs - own,
        horizon=config.horizon - own,
        loss=loss,
        masks=kept,
        masking=masking,
    )
    pruner.tuned(1.0, _reestimated_accuracy(module, context))
    return {name: module.get_parameter(name).detach() != 0 for name in names}, [
        {
            "sparsity": ramp.share(number) * sparsity,
            "untuned": untuned,
            "validation_accuracy": point["validation_accuracy"],
        }
        for number, point in enumerate(session.curve[first:], start=1)
    ]


def _reestimated_accuracy(module: nn.Module, context: Context) -> float:
    reestimate(module, context.dataset, seed=context.config.seed, device=context.device)
    return validation_accuracy(module, context.dataset, context.device)


def _ramp(config: PruneConfig, own_epochs: int) -> Ramp:
    """Return the ramp of a run; if the run is too short to reach its end, the ramp is shortened too."""
    epochs, horizon = config.epochs - own_epochs, config.horizon - own_epochs
    length = config.pruning_end * horizon
    return Ramp(config.pruning_schedule, length if length <= epochs else config.pruning_end * epochs, config.steps)
