"""Quantize a trained model, with training where the method needs it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kondense.artifacts.lineage import stage_record
from kondense.artifacts.model import Model, load_model, model_digest, save_model
from kondense.data.dataset import Dataset, dataset_digest, load_dataset
from kondense.errors import InputError, ShortfallError
from kondense.measuring.accuracy import accuracy, predict
from kondense.quantize import codebook, dynamic, fixed_point, mixed, qat, weight_only
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.layers import float_layers, weight_errors
from kondense.quantize.rate_distortion import search as rate_distortion
from kondense.quantize.request import Request
from kondense.quantize.sensitivity import accuracy_by_bits
from kondense.quantize.static import static
from kondense.quantize.summary import summarise
from kondense.training.checkpoint import open_checkpoint
from kondense.training.losses import Loss, SoftLabelLoss, cross_entropy

METHODS: dict[str, Callable[[Model, Request], Model]] = {
    "codebook": codebook.apply,
    "dynamic": dynamic.apply,
    "fixed_point": fixed_point.apply,
    "mixed": mixed.apply,
    "qat": qat.apply,
    "rate_distortion": rate_distortion.apply,
    "static": static.apply,
    "weight_only": weight_only.apply,
}


def run(
    config: QuantizeConfig, *, dataset_dir: Path, model_dir: Path, quantized_dir: Path, teacher_dir: Path | None = None
) -> dict[str, float]:
    """Quantize the model and write the result as a model artifact.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact; its training split is calibrated and trained on.
        model_dir: the Model artifact to quantize; it must be a float one.
        quantized_dir: where the quantized Model artifact goes.
        teacher_dir: a Model artifact whose logits join the loss of methods that train, instead of those of the
            model as it came in.

    Returns:
        ``validation_accuracy`` and ``validation_accuracy_before`` (fractions), ``bits`` (mean over all
        parameters) and ``float_layers`` (how many layers with weights stay in float).

    Raises:
        ValueError: the model is quantized already, has no layer to quantize, or calibration images
            are all of one class or not finite.
        NonFiniteLossError: training diverged.
        ShortfallError: the artifact is written, but it is only the closest to what was asked for.
    """
    dataset, model = load_dataset(dataset_dir), load_model(model_dir)
    if model.quantized or model.activations:
        raise InputError(f"a model must be quantized once, but {model_dir} is quantized already.")
    inputs = {"dataset": dataset_digest(dataset_dir), "model": model_digest(model_dir)}
    teacher = load_model(model_dir)
    if teacher_dir is not None:
        inputs["teacher"], teacher = model_digest(teacher_dir), load_model(teacher_dir)
        check_fits("teacher", teacher, dataset)
    loss = cross_entropy(config.label_smoothing)
    if config.trains and config.alpha:
        loss = _teacher_loss(teacher, dataset, config)
    request = Request(config, dataset, loss, teacher, open_checkpoint("quantize", config, inputs))
    quantized = METHODS[config.method](model, request)
    if not quantized.quantized:
        raise InputError("quantization needs a Conv2d or Linear layer, but the network has none.")
    metrics = {
        "validation_accuracy": _validation_accuracy(quantized, dataset),
        "validation_accuracy_before": _validation_accuracy(model, dataset),
        "bits": _mean_bits(quantized),
        "float_layers": float(len(float_layers(quantized))),
    }
    details: dict[str, Any] = {
        "float_layers": float_layers(quantized),
        "weight_errors": weight_errors(quantized, model),
    }
    if config.sensitivity:
        details["sensitivity"] = accuracy_by_bits(model.module, dataset, config.granularity)
    record = stage_record(
        "quantize",
        config,
        inputs=inputs,
        metrics=metrics,
        summary=summarise(config, quantized),
        curves=request.curve,
        details=details | request.details,
    )
    save_model(quantized_dir, dataclasses.replace(quantized, lineage=(*model.lineage, record)))
    if request.shortfalls:
        raise ShortfallError(" ".join(request.shortfalls))
    return metrics


def _teacher_loss(teacher: Model, dataset: Dataset, config: QuantizeConfig) -> Loss:
    return SoftLabelLoss(
        teacher.module,
        temperature=config.temperature,
        alpha=config.alpha,
        label_smoothing=config.label_smoothing,
        unchanged=dataset if config.augment == "none" else None,
    )


def _validation_accuracy(model: Model, dataset: Dataset) -> float:
    return accuracy(predict(model.module, dataset.validation, dataset), dataset.validation.labels)


def _mean_bits(model: Model) -> float:
    bits = total = 0
    for name, parameter in model.module.named_parameters():
        quantized = model.quantized.get(name)
        bits += parameter.numel() * (quantized.bits if quantized else 8 * parameter.element_size())
        total += parameter.numel()
    return bits / total
