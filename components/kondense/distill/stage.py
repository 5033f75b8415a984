"""Train a small network, the student, to imitate one to three large ones, the teachers."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from kondense.artifacts.lineage import stage_record
from kondense.artifacts.model import Model, load_model, model_digest, save_model
from kondense.data.dataset import Dataset, dataset_digest, load_dataset
from kondense.distill import attention, cache, features, logits, relational
from kondense.distill.config import DistillConfig
from kondense.distill.feature_hooks import watch
from kondense.distill.feature_loss import Hint, Request
from kondense.distill.loss import Lesson
from kondense.distill.student import check_given, make_student, size_warning
from kondense.distill.teachers import Teachers, weigh
from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.size import count_macs, count_parameters
from kondense.training.checkpoint import Checkpoint, open_checkpoint
from kondense.training.device import choose_device
from kondense.training.fit import fit
from kondense.training.transform import check_fits

METHODS: dict[str, Callable[[Request], Hint | None]] = {
    "logits": logits.prepare,
    "features": features.prepare,
    "attention": attention.prepare,
    "relational": relational.prepare,
}


def run(
    config: DistillConfig,
    *,
    dataset_dir: Path,
    teacher_dir: Path,
    student_dir: Path,
    model_dir: Path | None = None,
    teacher_2_dir: Path | None = None,
    teacher_3_dir: Path | None = None,
) -> dict[str, float]:
    """Train the student and write it as a model artifact.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact.
        teacher_dir: the Model artifact of the teacher; the layers that some methods imitate are this one's.
        student_dir: where the student's Model artifact goes.
        model_dir: a Model artifact that is the student as it stands, a pruned one for instance, instead of a new one.
        teacher_2_dir: a second teacher; the softened outputs of all are averaged.
        teacher_3_dir: a third teacher.

    Returns:
        ``validation_accuracy``, ``parameters`` and ``macs`` of the student and, with ``_teacher``, of the first
        teacher; ``teacher_agreement``, the fraction of validation images that both label alike.

    Raises:
        ValueError: a teacher or the student has other classes than the dataset, or the student cannot be built.
        NonFiniteLossError: training diverged.
    """
    dataset = load_dataset(dataset_dir)
    given = {"teacher": teacher_dir, "teacher_2": teacher_2_dir, "teacher_3": teacher_3_dir}
    teacher_dirs = {role: directory for role, directory in given.items() if directory is not None}
    teachers = {role: load_model(directory) for role, directory in teacher_dirs.items()}
    for role, model in teachers.items():
        check_fits(role, model, dataset)
    inputs = {"dataset": dataset_digest(dataset_dir)}
    inputs |= {role: model_digest(directory) for role, directory in teacher_dirs.items()}
    teacher = teachers["teacher"]
    if model_dir is not None:
        inputs["model"] = model_digest(model_dir)
        student, start = load_model(model_dir), "as it stood"
        check_given(config, student, dataset)
    else:
        student, inherits = make_student(config, teacher, dataset)
        start = "from the teacher's channels" if inherits else "from random weights"
    warning = size_warning(student.module, teacher.module)
    if warning:
        LOG.warning(warning)
    checkpoint = open_checkpoint("distill", config, inputs)
    curves, weights = teach(student, list(teachers.values()), dataset, config, checkpoint)
    metrics = measure(student.module, teacher.module, dataset, choose_device(config.device))
    record = stage_record(
        "distill",
        config,
        inputs=inputs,
        metrics=metrics,
        summary=summary(config, student, start, len(teachers)),
        curves=curves,
        details={
            "teacher_lineage": [dict(entry) for entry in teacher.lineage],
            "teacher_weights": dict(zip(teachers, weights, strict=True)),
            "warnings": [warning] if warning else [],
        },
    )
    save_model(student_dir, dataclasses.replace(student, lineage=(*student.lineage, record)))
    return metrics


def teach(
    student: Model, models: Sequence[Model], dataset: Dataset, config: DistillConfig, checkpoint: Checkpoint | None
) -> tuple[list[dict[str, float]], list[float]]:
    """Train the student in place; return the points of the curve and the weights of the teachers."""
    device, modules = choose_device(config.device), [model.module for model in models]
    request = Request(modules[0], student.module, dataset.shape, config.hint_layers, config.seed)
    hint = METHODS[config.method](request)
    pairs = hint.pairs if hint else ()
    for pair in pairs:
        LOG.info(f"the student's {pair.student.name} imitates the teacher's {pair.teacher.name}")
    weights = weigh(config.teacher_weights, modules, dataset, device)
    masks = student.masks()
    with ExitStack() as stack:
        theirs = stack.enter_context(watch(modules[0], [pair.teacher.name for pair in pairs], training=False))
        mine = stack.enter_context(watch(student.module, [pair.student.name for pair in pairs], training=True))
        teachers = Teachers(modules, weights, hint, theirs)
        cached = cache.fill(teachers, dataset, device) if config.cache_teacher else []
        lesson = Lesson(config, teachers, hint, mine, cached)
        curves = fit(student.module, dataset, config, loss=lesson, masks=masks, checkpoint=checkpoint)
    for module in modules:
        module.to("cpu")
    with torch.no_grad():
        for name, mask in masks.items():  # a weight times a mask may be -0.0, which packs worse than 0.0
            student.module.get_parameter(name).masked_fill_(~mask, 0.0)
    return curves, weights


def summary(config: DistillConfig, student: Model, start: str, teachers: int) -> str:
    """Return the step in words, such as ``distill into resnet8 at width 0.5 from the teacher's channels, 4 epochs``."""
    width = student.network.arguments.get("width", 1.0)
    method = "" if config.method == "logits" else f" by {config.method}"
    crowd = f" from {teachers} teachers" if teachers > 1 else ""
    return f"distill{method}{crowd} into {student.network.name} at width {width:g} {start}, {config.epochs} epochs"


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
