"""Prune a network in steps, with fine-tuning after each."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from components.artifacts.dataset import Dataset, dataset_digest, load_dataset
from components.artifacts.lineage import stage_record
from components.artifacts.model import Model, load_model, model_digest, save_model
from components.networks.build import check_images
from components.prune import l1, magnitude
from components.prune.batch_norm import reestimate
from components.prune.config import PruneConfig
from components.prune.outcome import layer_sparsity, measure, summary, validation_accuracy
from components.prune.request import Request, Step, resolve
from components.prune.schedule import epochs_by_step, shares
from components.training.checkpoint import Checkpoint, open_checkpoint
from components.training.device import choose_device
from components.training.distillation import check_classes, distillation_loss
from components.training.loop import fit
from components.training.run import Loss

METHODS: dict[str, Callable[[nn.Module, Request], Step]] = {"l1": l1.prepare, "magnitude": magnitude.prepare}


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
    checkpoint = open_checkpoint("prune", config, inputs)
    pruned, history, curves = _prune(model, dataset, config, loss, checkpoint)
    metrics = measure(model, pruned, dataset, choose_device(config.device)) | {
        "validation_accuracy_untuned": history[-1]["untuned"]
    }
    record = stage_record(
        "prune",
        config,
        inputs=inputs,
        metrics=metrics,
        summary=summary(config, metrics, taught=teacher_dir is not None),
        curves=curves,
        details={"layers": layer_sparsity(model.module, pruned.module), "steps": history},
    )
    save_model(pruned_dir, dataclasses.replace(pruned, lineage=(*model.lineage, record)))
    return metrics


def _prune(
    model: Model, dataset: Dataset, config: PruneConfig, loss: Loss | None, checkpoint: Checkpoint | None
) -> tuple[Model, list[dict[str, float]], list[Mapping[str, float]]]:
    module, device = copy.deepcopy(model.module), choose_device(config.device)
    step = METHODS[config.method](module, resolve(config, model, dataset))
    steps = min(config.steps, config.epochs) if config.pruning_schedule != "one_shot" else 1
    horizons = epochs_by_step(config.horizon, steps)
    history: list[dict[str, float]] = []
    curves: list[Mapping[str, float]] = []
    for number, share in enumerate(shares(config.pruning_schedule, steps), start=1):
        masks = step(share)
        check_images(module, model.network)
        reestimate(module, dataset, seed=config.seed, device=device)
        untuned = validation_accuracy(module, dataset, device)
        print(f"step {number}/{steps} sparsity={share * config.sparsity:.4f} validation_accuracy={untuned:.4f}")
        tuning = dataclasses.replace(
            config,
            epochs=epochs_by_step(config.epochs, steps)[number - 1],
            max_epochs=horizons[number - 1],
            seed=(config.seed + number) % 2**31,
        )
        # A run that makes fewer steps is another run, and must not meet this one's checkpoints.
        child = checkpoint.child(f"step-{number}-of-{steps}") if checkpoint else None
        points = fit(module, dataset, tuning, loss=loss, masks=masks, checkpoint=child)
        done = float(len(curves))
        curves += [point | {"epoch": done + point["epoch"]} for point in points]
        tuned = points[-1]["validation_accuracy"]
        history.append({"sparsity": share * config.sparsity, "untuned": untuned, "validation_accuracy": tuned})
    with torch.no_grad():
        for name, mask in masks.items():  # a weight times a mask may be -0.0, which packs worse than 0.0
            module.get_parameter(name).masked_fill_(~mask, 0.0)
    return dataclasses.replace(model, module=module, masked=tuple(sorted(masks))), history, curves


def _teacher_loss(teacher: Model, dataset: Dataset, config: PruneConfig) -> Loss:
    check_classes("teacher", teacher, dataset)
    return distillation_loss(
        teacher.module, temperature=config.temperature, alpha=config.alpha, label_smoothing=config.label_smoothing
    )
