"""Quantize a trained model, with training where the method needs it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kondense.artifacts.equivalence import probes
from kondense.artifacts.images import Images
from kondense.artifacts.model import Model
from kondense.artifacts.separation import separate_attention
from kondense.data.dataset import Dataset
from kondense.errors import InputError
from kondense.logging import LOG
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.context import Context, Quantizer
from kondense.quantize.layers import float_layers, float_reasons, quantizable_layers, weight_errors, zeroed_layers
from kondense.quantize.methods import METHODS
from kondense.quantize.sensitivity import accuracy_by_bits
from kondense.training.checkpoint import Checkpoint
from kondense.training.losses import teacher_loss
from kondense.training.session import Session
from kondense.training.transform import Result, check_float, copied, run_transform


def run(
    config: QuantizeConfig, *, dataset_dir: Path, model_dir: Path, quantized_dir: Path, teacher_dir: Path | None = None
) -> dict[str, float]:
    """Quantize a Model artifact (see ``quantize`` and ``run_transform``).

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact.
        model_dir: the Model artifact to quantize.
        quantized_dir: directory of the quantized Model artifact.
        teacher_dir: the Model artifact of a teacher for methods that train.
    """
    return run_transform(
        "quantize",
        config,
        quantize,
        dataset_dir=dataset_dir,
        output_dir=quantized_dir,
        model_dir=model_dir,
        teacher_dirs={"teacher": teacher_dir} if teacher_dir else {},
    )


def quantize(
    model: Model,
    dataset: Dataset,
    config: QuantizeConfig,
    *,
    teachers: Mapping[str, Model] | None = None,
    checkpoint: Checkpoint | None = None,
    method: Quantizer | None = None,
) -> Result:
    """Return a quantized copy of ``model``.

    Args:
        model: a float model; it is not changed.
        dataset: calibration and training use its training split.
        config: the parameters.
        teachers: the model with the role ``teacher`` gives the soft labels of training; default: ``model``.
        checkpoint: parent of the checkpoints of the training phases.
        method: a quantizer to use instead of ``config.method`` (see ``kondense.quantize.methods``).

    Returns:
        The model with ``validation_accuracy`` and ``validation_accuracy_before`` (fractions), ``bits`` (mean over all
        parameters) and ``float_layers`` (number of layers with weights that remain in float).

    Raises:
        InputError: the model is quantized already, has no layer to quantize, or the calibration images are all of one
            class or not finite.
        NonFiniteLossError: training diverged.
    """
    check_float("quantize", model)
    if not quantizable_layers(model.module):
        raise InputError("quantize needs a network with a Conv2d or Linear layer, but this one has none.")
    reference = copied((teachers or {}).get("teacher", model))
    loss = teacher_loss(config, reference.module, dataset, temperature=config.temperature, alpha=config.alpha)
    context = Context(config, Session(dataset, config, loss, checkpoint), reference)
    original = dataclasses.replace(copied(model), images=Images.of(dataset))  # part of a kz file's size
    separate_attention(original.module, probes(dataset.shape))  # projections that are layers can be quantized
    quantized = (method or METHODS[config.method].load())(copied(original), context)
    metrics = {
        "validation_accuracy": context.validation_accuracy(quantized.module),
        "validation_accuracy_before": context.validation_accuracy(original.module),
        "bits": _mean_bits(quantized),
        "float_layers": float(len(float_layers(quantized))),
    }
    for name, reason in float_reasons(quantized).items():
        LOG.info(f"{name} remains in float: {reason}.")
    for name in zeroed_layers(quantized, original):
        LOG.warning(f"all weights of {name!r} are rounded to zero, so that the layer gives its bias for any input.")
    details: dict[str, Any] = {
        "float_layers": float_layers(quantized),
        "float_reasons": float_reasons(quantized),
        "weight_errors": weight_errors(quantized, original),
    }
    if method:
        details["method"] = _name(method)
    if config.sensitivity:
        details["sensitivity"] = accuracy_by_bits(original.module, dataset, config.granularity)
    summary = context.summary or f"quantize by {_name(method) if method else config.method}"
    return Result(quantized, metrics, summary, context.session.curve, details | context.details, context.shortfall)


def _name(method: Quantizer) -> str:
    return str(getattr(method, "__name__", type(method).__name__))


def _mean_bits(model: Model) -> float:
    bits = total = 0
    for name, parameter in model.module.named_parameters():
        quantized = model.quantized.get(name)
        bits += parameter.numel() * (quantized.bits if quantized else 8 * parameter.element_size())
        total += parameter.numel()
    return bits / total
