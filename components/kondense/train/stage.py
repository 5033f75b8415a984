"""Train a network, the teacher of all that follows, or import a trained one."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kondense.artifacts.lineage import stage_record
from kondense.artifacts.model import Model, save_model
from kondense.data.dataset import Dataset, dataset_digest, load_dataset
from kondense.errors import InputError
from kondense.measuring.accuracy import accuracy, predict
from kondense.networks.allowed import allowing
from kondense.networks.build import NetworkSpec, build, check_images
from kondense.train.config import TrainConfig
from kondense.train.imported import import_model
from kondense.training.checkpoint import open_checkpoint
from kondense.training.fit import fit


def run(config: TrainConfig, *, dataset_dir: Path, model_dir: Path) -> dict[str, float]:
    """Train ``config.network`` on the dataset and write the model artifact.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact.
        model_dir: where the Model artifact goes.

    Returns:
        ``validation_accuracy`` (fraction), ``train_loss`` when trained, ``parameters``.

    Raises:
        ValueError: the network is unknown or does not fit the images, or an import is no model of it.
        NonFiniteLossError: training diverged.
    """
    dataset = load_dataset(dataset_dir)
    inputs = {"dataset": dataset_digest(dataset_dir)}
    spec = network_spec(config, dataset)
    curves: list[Mapping[str, float]] = []
    if config.import_uri:
        with allowing(networks=[config.network]):
            model = import_model(config.import_uri, spec)
        spec = model.network
        check_images(f"network {spec.name!r}", model.module, dataset.shape, len(dataset.classes))
        _check_fits(spec, dataset)
        summary = f"import {spec.name}"
    else:
        module = build(spec, seed=config.seed)
        check_images(f"network {spec.name!r}", module, dataset.shape, len(dataset.classes))
        curves.extend(fit(module, dataset, config, checkpoint=open_checkpoint("train", config, inputs)))
        model = Model(module, spec)
        summary = f"train {spec.name} for {config.epochs} epochs"
    metrics = _metrics(model, dataset, curves)
    record = stage_record("train", config, inputs=inputs, metrics=metrics, summary=summary, curves=curves)
    save_model(model_dir, dataclasses.replace(model, lineage=(*model.lineage, record)))
    return metrics


def network_spec(config: TrainConfig, dataset: Dataset) -> NetworkSpec:
    """Return how to build the configured network for a dataset's images and classes."""
    channels, height, width = dataset.shape
    if height != width:
        raise InputError(f"images must be square, but got {height}x{width}.")
    arguments: dict[str, Any] = {"classes": len(dataset.classes), "channels": channels, "image_size": height}
    if config.width != 1.0:
        arguments["width"] = config.width
    return NetworkSpec(config.network, arguments)


def _metrics(model: Model, dataset: Dataset, curves: list[Mapping[str, float]]) -> dict[str, float]:
    logits_NK = predict(model.module.eval(), dataset.validation, dataset)
    metrics = {
        "validation_accuracy": accuracy(logits_NK, dataset.validation.labels),
        "parameters": float(sum(parameter.numel() for parameter in model.module.parameters())),
    }
    if curves:
        metrics["train_loss"] = curves[-1]["train_loss"]
    return metrics


def _check_fits(spec: NetworkSpec, dataset: Dataset) -> None:
    channels, height, _ = dataset.shape
    wanted = {"classes": len(dataset.classes), "channels": channels, "image_size": height}
    for name, value in wanted.items():
        if spec.arguments.get(name) != value:
            raise InputError(f"the imported model's {name} must be {value}, but got {spec.arguments.get(name)}.")
