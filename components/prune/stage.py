"""Prune a network in steps, with fine-tuning after each."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from components.artifacts.dataset import Dataset, dataset_digest, load_dataset
from components.artifacts.lineage import stage_record
from components.artifacts.model import Model, load_model, model_digest, save_model
from components.networks.build import check_images
from components.prune import fpgm, l1, l2, magnitude
from components.prune.batch_norm import reestimate
from components.prune.config import PruneConfig
from components.prune.method import Method, ShortfallError
from components.prune.outcome import layer_sparsity, measure, summary, validation_accuracy
from components.prune.request import Request, resolve
from components.prune.schedule import epochs_by_step, shares
from components.training.checkpoint import open_checkpoint
from components.training.distillation import check_classes, distillation_loss
from components.training.run import Loss

METHODS: dict[str, Callable[[nn.Module, Request], Method]] = {
    "fpgm": fpgm.prepare,
    "l1": l1.prepare,
    "l2": l2.prepare,
    "magnitude": magnitude.prepare,
}


def run(
    config: PruneConfig, *, dataset_dir: Path, model_dir: Path, pruned_dir: Path, teacher_dir: Path | None = None
) -> dict[str, float]:
    """Prune the model and write the result as a model artifact.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact; its training split is fine-tuned on.
        model_dir: the Model artifact to prune.
        pruned_dir: where the pruned Model artifact goes.
        teacher_dir: a Model artifact whose logits join the fine-tuning loss.

    Returns:
        ``validation_accuracy`` with ``_before`` and ``_untuned`` (right after the last removal), ``sparsity``
        (fraction of the weights that are gone or zero), ``parameters``, ``macs``, and both ``_before``.

    Raises:
        ValueError: the request names no layer, cannot be met, or does not fit the model.
        ShortfallError: the artifact is written, but it is only the closest to what was asked for.
        NonFiniteLossError: fine-tuning diverged.
    """
    dataset, model = load_dataset(dataset_dir), load_model(model_dir)
    inputs = {"dataset": dataset_digest(dataset_dir), "model": model_digest(model_dir)}
    if model.quantized or model.activations:
        raise ValueError(f"a model must be pruned before it is quantized, but {model_dir} is quantized.")
    check_classes("model", model, dataset)
    loss = None
    if teacher_dir is not None:
        inputs["teacher"] = model_digest(teacher_dir)
        loss = _teacher_loss(load_model(teacher_dir), dataset, config)
    request = resolve(config, model, dataset, loss, open_checkpoint("prune", config, inputs))
    outcome = _prune(model, request)
    metrics = measure(model, outcome.pruned, dataset, request.device) | {
        "validation_accuracy_untuned": outcome.steps[-1]["untuned"]
    }
    details: dict[str, Any] = {"layers": layer_sparsity(model.module, outcome.pruned.module), "steps": outcome.steps}
    record = stage_record(
        "prune",
        config,
        inputs=inputs,
        metrics=metrics,
        summary=summary(config, metrics, taught=teacher_dir is not None),
        curves=request.curve,
        details=details | outcome.details,
    )
    save_model(pruned_dir, dataclasses.replace(outcome.pruned, lineage=(*model.lineage, record)))
    if outcome.shortfall:
        raise ShortfallError(outcome.shortfall)
    return metrics


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A pruned model, a figure per step, the method's own details and what it did not reach."""

    pruned: Model
    steps: list[dict[str, float]]
    details: dict[str, Any]
    shortfall: str


def _prune(model: Model, request: Request) -> Outcome:
    module, config = copy.deepcopy(model.module), request.config
    method = METHODS[config.method](module, request)
    own = method.own_epochs()
    steps = min(config.steps, config.epochs - own) if config.pruning_schedule != "one_shot" else 1
    epochs, horizons = (epochs_by_step(count - own, steps) for count in (config.epochs, config.horizon))
    history: list[dict[str, float]] = []
    for number, share in enumerate(shares(config.pruning_schedule, steps), start=1):
        masks = method.step(share)
        check_images(module, model.network)
        reestimate(module, request.dataset, seed=config.seed, device=request.device)
        untuned = validation_accuracy(module, request.dataset, request.device)
        print(f"step {number}/{steps} sparsity={share * config.sparsity:.4f} validation_accuracy={untuned:.4f}")
        # A run that makes fewer steps is another run, and must not meet this one's checkpoints.
        phase, loss = f"step-{number}-of-{steps}", method.loss(request.loss)
        horizon = horizons[number - 1]
        tuned = request.tune(module, phase, epochs[number - 1], horizon=horizon, loss=loss, masks=masks)
        method.tuned(share, tuned)
        history.append({"sparsity": share * config.sparsity, "untuned": untuned, "validation_accuracy": tuned})
    final = method.finish()
    masks = masks if final is None else final
    with torch.no_grad():
        for name, mask in masks.items():  # a weight times a mask may be -0.0, which packs worse than 0.0
            module.get_parameter(name).masked_fill_(~mask, 0.0)
    pruned = dataclasses.replace(model, module=module, masked=tuple(sorted(masks)))
    return Outcome(pruned, history, method.details(), method.shortfall())


def _teacher_loss(teacher: Model, dataset: Dataset, config: PruneConfig) -> Loss:
    check_classes("teacher", teacher, dataset)
    return distillation_loss(
        teacher.module, temperature=config.temperature, alpha=config.alpha, label_smoothing=config.label_smoothing
    )
