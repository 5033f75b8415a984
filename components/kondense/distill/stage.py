"""Train a small network, the student, to imitate one to three large ones, the teachers."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.distill import cache
from kondense.distill.config import LEAST_RELATED, DistillConfig
from kondense.distill.feature_hooks import record_outputs
from kondense.distill.feature_loss import Context, FeatureLoss
from kondense.distill.loss import DistillationLoss
from kondense.distill.methods import METHODS
from kondense.distill.student import check_student, make_student, size_warning, takes_width
from kondense.distill.teachers import Teachers, weigh
from kondense.errors import InputError
from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.size import count_macs, count_parameters
from kondense.training.auxiliary import IMAGES, drop_auxiliary
from kondense.training.checkpoint import Checkpoint
from kondense.training.device import choose_device
from kondense.training.fit import fit
from kondense.training.losses import label_loss
from kondense.training.transform import Result, copied, run_transform

GIVEN = "as given"


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
    """Distill Model artifacts (see ``distill`` and ``run_transform``).

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact.
        teacher_dir: the Model artifact of the first teacher.
        student_dir: directory of the student's Model artifact.
        model_dir: the Model artifact of a given student, such as a pruned model, instead of a new network.
        teacher_2_dir: a second teacher.
        teacher_3_dir: a third teacher.
    """
    directories = {"teacher": teacher_dir, "teacher_2": teacher_2_dir, "teacher_3": teacher_3_dir}
    return run_transform(
        "distill",
        config,
        distill,
        dataset_dir=dataset_dir,
        output_dir=student_dir,
        model_dir=model_dir,
        teacher_dirs={role: directory for role, directory in directories.items() if directory is not None},
    )


def distill(
    student: Model | None,
    dataset: Dataset,
    config: DistillConfig,
    *,
    teachers: Mapping[str, Model],
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Return the trained student.

    Args:
        student: the model to start from, such as a pruned one; it is not changed. None: a new network.
        dataset: its training split is trained on.
        config: the parameters.
        teachers: one to three models by role, which are not changed; some methods compare layers of the first one.
        checkpoint: where to resume from and to save to.

    Returns:
        The model with ``validation_accuracy``, ``parameters`` and ``macs`` of the student and, with the suffix
        ``_teacher``, of the first teacher; ``teacher_agreement``, the fraction of validation images with equal
        predictions.

    Raises:
        InputError: the student cannot be built, or the config asks for another student than the given one.
        NonFiniteLossError: training diverged.
    """
    _check_relations(config, dataset)
    models = [copied(model) for model in teachers.values()]
    teacher, start = models[0], GIVEN
    if student is None:
        student, start = make_student(config, teacher, dataset)
    else:
        check_student(config, student)
        student = copied(student)
    warning = size_warning(student.module, teacher.module)
    if warning:
        LOG.warning(warning)
    device, modules = choose_device(config.device), [model.module for model in models]
    weights = weigh(config.teacher_weights, modules, dataset, device)
    curve = _train(student, Teachers(modules, weights), dataset, config, checkpoint)
    if start != GIVEN:
        drop_auxiliary(student.module, dataset.normalise(dataset.train.images[:IMAGES]), len(dataset.classes))
    return Result(
        student,
        measure(student.module, teacher.module, dataset, device),
        summary(config, student, start, len(models)),
        curve,
        details={
            "teacher_lineage": [dict(entry) for entry in teacher.lineage],
            "teacher_weights": dict(zip(teachers, weights, strict=True)),
            "warnings": [warning] if warning else [],
        },
    )


def _check_relations(config: DistillConfig, dataset: Dataset) -> None:
    if config.method == "relational" and len(dataset.train) < LEAST_RELATED:
        raise InputError(
            f"method relational needs {LEAST_RELATED} training images, since it compares images with each other, but"
            f" got {len(dataset.train)}."
        )


def _train(
    student: Model, teachers: Teachers, dataset: Dataset, config: DistillConfig, checkpoint: Checkpoint | None
) -> list[dict[str, float]]:
    """Train the student in place and return the curve."""
    teacher = teachers.modules[0]
    context = Context(teacher, student.module, dataset.shape, config.hint_layers, config.seed)
    feature_loss: FeatureLoss | None = METHODS[config.method].load()(context)
    pairs, masks = feature_loss.pairs if feature_loss else (), student.masks()
    for pair in pairs:
        LOG.info(f"the student's {pair.student.name} is compared with the teacher's {pair.teacher.name}")
    with (
        record_outputs(teacher, [pair.teacher.name for pair in pairs], training=False) as teacher_layers,
        record_outputs(student.module, [pair.student.name for pair in pairs], training=True) as student_layers,
    ):
        teachers.feature_loss, teachers.layers = feature_loss, teacher_layers
        cached = cache.fill(teachers, dataset, choose_device(config.device)) if config.cache_teacher else []
        hard = label_loss(config, dataset)
        loss = DistillationLoss(config, teachers, feature_loss, student_layers, cached, hard=hard)
        curve = fit(student.module, dataset, config, loss=loss, masks=masks, checkpoint=checkpoint)
    with torch.no_grad():
        for name, mask in masks.items():  # a weight times a mask may be -0.0, which packs worse than 0.0
            student.module.get_parameter(name).masked_fill_(~mask, 0.0)
    return curve


def summary(config: DistillConfig, student: Model, start: str, teachers: int) -> str:
    """Return the step in words, such as ``distill into resnet8 at width 0.5 from the teacher's channels, 4 epochs``."""
    width = student.network.arguments.get("width", 1.0)
    if start != GIVEN and not takes_width(student.network.name):
        width = config.width
    method = "" if config.method == "logits" else f" by {config.method}"
    several = f" from {teachers} teachers" if teachers > 1 else ""
    return f"distill{method}{several} into {student.network.name} at width {width:g} {start}, {config.epochs} epochs"


def measure(student: nn.Module, teacher: nn.Module, dataset: Dataset, device: torch.device) -> dict[str, float]:
    """Return the metrics of ``distill``; both networks are on the CPU afterwards."""
    labels_N = dataset.validation.labels
    metrics: dict[str, float] = {}
    logits_NK: dict[str, Tensor] = {}
    for suffix, module in (("", student), ("_teacher", teacher)):
        logits_NK[suffix] = predict(module.to(device), dataset.validation, dataset, device=device)
        module.to("cpu")
        metrics[f"validation_accuracy{suffix}"] = accuracy(logits_NK[suffix], labels_N)
        metrics[f"parameters{suffix}"] = float(count_parameters(module))
        metrics[f"macs{suffix}"] = float(sum(count_macs(module, dataset.shape).values()))
    metrics["teacher_agreement"] = accuracy(logits_NK[""], logits_NK["_teacher"].argmax(1))
    return metrics
