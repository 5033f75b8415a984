"""Train a small network, the student, to imitate a large one, the teacher."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from components.artifacts.dataset import Dataset, dataset_digest, load_dataset
from components.artifacts.lineage import stage_record
from components.artifacts.model import Model, load_model, model_digest, save_model
from components.distill import logits
from components.distill.config import DistillConfig
from components.measuring.accuracy import accuracy, predict
from components.measuring.size import count_macs, count_parameters
from components.networks.build import NetworkSpec, build, check_images
from components.training.checkpoint import open_checkpoint
from components.training.device import choose_device
from components.training.distillation import check_classes
from components.training.loop import fit
from components.training.run import Loss

METHODS: dict[str, Callable[[nn.Module, nn.Module, DistillConfig], Loss]] = {"logits": logits.make_loss}


def run(config: DistillConfig, *, dataset_dir: Path, teacher_dir: Path, student_dir: Path) -> dict[str, float]:
    """Train the student and write it as a model artifact.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact.
        teacher_dir: the Model artifact of the teacher.
        student_dir: where the student's Model artifact goes.

    Returns:
        ``validation_accuracy``, ``parameters`` and ``macs`` of the student and, with ``_teacher``, of the
        teacher; ``teacher_agreement``, the fraction of validation images that both label alike.

    Raises:
        ValueError: the teacher has other classes than the dataset, or the student cannot be built.
        NonFiniteLossError: training diverged.
    """
    dataset, teacher = load_dataset(dataset_dir), load_model(teacher_dir)
    inputs = {"dataset": dataset_digest(dataset_dir), "teacher": model_digest(teacher_dir)}
    check_classes("teacher", teacher, dataset)
    spec = student_spec(config, teacher, dataset)
    module = build(spec, seed=config.seed)
    check_images(module, spec)
    warn_if_larger(module, teacher.module)
    loss = METHODS[config.method](module, teacher.module, config)
    curves = fit(module, dataset, config, loss=loss, checkpoint=open_checkpoint("distill", config, inputs))
    metrics = measure(module, teacher.module, dataset, choose_device(config.device))
    record = stage_record(
        "distill",
        config,
        inputs=inputs,
        metrics=metrics,
        summary=f"distill into {spec.name} at width {spec.arguments.get('width', 1.0):g}, {config.epochs} epochs",
        curves=curves,
        details={"teacher_lineage": [dict(entry) for entry in teacher.lineage]},
    )
    save_model(student_dir, Model(module, spec, lineage=(record,)))
    return metrics


def student_spec(config: DistillConfig, teacher: Model, dataset: Dataset) -> NetworkSpec:
    """Return how to build the student: the network asked for, or the teacher's, at the width asked for."""
    channels, size, _ = dataset.shape
    arguments = {"classes": len(dataset.classes), "channels": channels, "image_size": size}
    width = config.width
    if not config.student_network or config.student_network == teacher.network.name:
        arguments = dict(teacher.network.arguments)
        width *= arguments.pop("width", 1.0)
    if width != 1.0:
        arguments["width"] = width
    return NetworkSpec(config.student_network or teacher.network.name, arguments)


def warn_if_larger(student: nn.Module, teacher: nn.Module) -> None:
    """Warn when the student has more parameters than the teacher: nothing is compressed then."""
    mine, theirs = count_parameters(student), count_parameters(teacher)
    if mine > theirs:
        warnings.warn(f"the student is larger than the teacher: {mine} parameters against {theirs}.", stacklevel=2)


def measure(student: nn.Module, teacher: nn.Module, dataset: Dataset, device: torch.device) -> dict[str, float]:
    """Return the stage's figures, accuracies on the validation split; both networks end on the CPU."""
    labels_N = dataset.validation.labels
    metrics: dict[str, float] = {}
    logits_NK: dict[str, torch.Tensor] = {}
    for suffix, module in (("", student), ("_teacher", teacher)):
        logits_NK[suffix] = predict(module.to(device), dataset.validation, dataset, device=device)
        module.to("cpu")
        metrics[f"validation_accuracy{suffix}"] = accuracy(logits_NK[suffix], labels_N)
        metrics[f"parameters{suffix}"] = float(count_parameters(module))
        metrics[f"macs{suffix}"] = float(sum(count_macs(module, dataset.shape).values()))
    metrics["teacher_agreement"] = accuracy(logits_NK[""], logits_NK["_teacher"].argmax(1))
    return metrics
