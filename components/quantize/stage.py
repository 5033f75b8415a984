"""Quantize a model after training."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from components.artifacts.dataset import Dataset, dataset_digest, load_dataset
from components.artifacts.lineage import stage_record
from components.artifacts.model import Model, load_model, model_digest, save_model
from components.measuring.accuracy import accuracy, predict
from components.quantize import static, weight_only
from components.quantize.config import QuantizeConfig
from components.quantize.layers import float_layers, weight_errors


def run(config: QuantizeConfig, *, dataset_dir: Path, model_dir: Path, quantized_dir: Path) -> dict[str, float]:
    """Quantize the model and write the result as a model artifact.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact; calibration images come from its training split.
        model_dir: the Model artifact to quantize; it must be a float one.
        quantized_dir: where the quantized Model artifact goes.

    Returns:
        ``validation_accuracy`` and ``validation_accuracy_before`` (fractions), ``bits`` (mean over all
        parameters) and ``float_layers`` (how many layers with weights stay in float).

    Raises:
        ValueError: the model is quantized already, has no layer to quantize, or calibration images
            are all of one class or not finite.
    """
    dataset, model = load_dataset(dataset_dir), load_model(model_dir)
    if model.quantized or model.activations:
        raise ValueError(f"a model must be quantized once, but {model_dir} is quantized already.")
    quantized = METHODS[config.method](model, dataset, config)
    if not quantized.quantized:
        raise ValueError("quantization needs a Conv2d or Linear layer, but the network has none.")
    metrics = {
        "validation_accuracy": _validation_accuracy(quantized, dataset),
        "validation_accuracy_before": _validation_accuracy(model, dataset),
        "bits": _mean_bits(quantized),
        "float_layers": float(len(float_layers(quantized))),
    }
    record = stage_record(
        "quantize",
        config,
        inputs={"dataset": dataset_digest(dataset_dir), "model": model_digest(model_dir)},
        metrics=metrics,
        summary=_summary(config),
        details={"float_layers": float_layers(quantized), "weight_errors": weight_errors(quantized, model)},
    )
    save_model(quantized_dir, dataclasses.replace(quantized, lineage=(*model.lineage, record)))
    return metrics


def calibration_batches(dataset: Dataset, config: QuantizeConfig) -> list[Tensor]:
    """Draw the calibration images from the training split and normalise them.

    Raises:
        ValueError: they are all of one class, though the dataset has more.
    """
    split = dataset.train
    generator = torch.Generator().manual_seed(config.seed)
    chosen_N = torch.randperm(len(split), generator=generator)[: config.calibration_images]
    classes = split.labels[chosen_N].unique()
    if len(classes) < min(2, len(dataset.classes)):
        raise ValueError(
            f"calibration images must show at least 2 classes, but all {len(chosen_N)} are of class"
            f" {dataset.classes[int(classes[0])]!r}."
        )
    return [dataset.normalise(split.images[part_N]) for part_N in chosen_N.split(config.batch_size)]


def _static(model: Model, dataset: Dataset, config: QuantizeConfig) -> Model:
    return static.quantize(
        model,
        calibration_batches(dataset, config),
        bits=config.bits,
        granularity=config.granularity,
        calibration=config.calibration,
        percentile=config.percentile,
    )


def _weight_only(model: Model, _dataset: Dataset, config: QuantizeConfig) -> Model:
    return weight_only.quantize(model, bits=config.bits, granularity=config.granularity)


METHODS: dict[str, Callable[[Model, Dataset, QuantizeConfig], Model]] = {
    "static": _static,
    "weight_only": _weight_only,
}


def _validation_accuracy(model: Model, dataset: Dataset) -> float:
    return accuracy(predict(model.module, dataset.validation, dataset), dataset.validation.labels)


def _mean_bits(model: Model) -> float:
    bits = total = 0
    for name, parameter in model.module.named_parameters():
        quantized = model.quantized.get(name)
        bits += parameter.numel() * (quantized.bits if quantized else 8 * parameter.element_size())
        total += parameter.numel()
    return bits / total


def _summary(config: QuantizeConfig) -> str:
    if config.method == "static":
        return f"quantize to {config.bits}-bit weights and 8-bit activations ({config.calibration})"
    return f"quantize weights to {config.bits} bits per {config.granularity}"
