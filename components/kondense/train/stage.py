"""Train a network, the teacher of all further steps, or import a trained one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.errors import InputError
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.size import count_parameters
from kondense.networks.allowed import allowing
from kondense.networks.build import NetworkSpec, build
from kondense.train.config import TrainConfig
from kondense.train.imported import import_model
from kondense.training.checkpoint import Checkpoint
from kondense.training.fit import fit
from kondense.training.masking import zero_masked
from kondense.training.transform import Result, check_fits, check_float, copied, run_transform


def run(config: TrainConfig, *, dataset_dir: Path, model_dir: Path) -> dict[str, float]:
    """Train or import a model and write its artifact (see ``train``).

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact.
        model_dir: directory of the new Model artifact.

    Returns:
        The metrics.
    """
    return run_transform("train", config, train, dataset_dir=dataset_dir, output_dir=model_dir)


def train(
    model: Model | None,
    dataset: Dataset,
    config: TrainConfig,
    *,
    teachers: Mapping[str, Model] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Train a model on the dataset's training split, or import it from ``config.import_uri``.

    Args:
        model: the model to train, a float one, which is not changed; None: a new ``config.network``.
        dataset: the data.
        config: the parameters.
        teachers: not used; see ``distill``.
        checkpoint: where to resume from and to save to.

    Returns:
        The model with ``validation_accuracy`` (fraction), ``parameters`` and, if trained, ``train_loss``.

    Raises:
        InputError: the network is unknown or does not fit the images, or the import does not fit the network.
        NonFiniteLossError: training diverged.
    """
    spec = model.network if model else network_spec(config, dataset)
    imported = bool(config.import_uri) and model is None
    if model is not None:
        check_float("train", model)
        model = copied(model)
    elif imported:
        with allowing(networks=[config.network]):
            model = import_model(config.import_uri, spec)
        _check_arguments(model.network, dataset)
    else:
        model = Model(build(spec, seed=config.seed), spec)
    check_fits(f"network {model.network.name!r}", model, dataset)
    curve = [] if imported else fit(model.module, dataset, config, masks=model.masks(), checkpoint=checkpoint)
    zero_masked(model.module, model.masks())
    metrics = _metrics(model, dataset) | ({"train_loss": curve[-1]["train_loss"]} if curve else {})
    name = model.network.name
    summary = f"import {name}" if imported else f"train {name} for {config.epochs} epochs"
    return Result(model, metrics, summary, curve)


def network_spec(config: TrainConfig, dataset: Dataset) -> NetworkSpec:
    """Return the spec of the configured network for a dataset's images and classes."""
    channels, height, width = dataset.shape
    if height != width:
        raise InputError(f"images must be square, but got {height}x{width}.")
    arguments: dict[str, Any] = {"classes": len(dataset.classes), "channels": channels, "image_size": height}
    if config.width != 1.0:
        arguments["width"] = config.width
    return NetworkSpec(config.network, arguments)


def _metrics(model: Model, dataset: Dataset) -> dict[str, float]:
    logits_NK = predict(model.module.eval(), dataset.validation, dataset)
    return {
        "validation_accuracy": accuracy(logits_NK, dataset.validation.labels),
        "parameters": float(count_parameters(model.module)),
    }


def _check_arguments(spec: NetworkSpec, dataset: Dataset) -> None:
    channels, height, _ = dataset.shape
    wanted = {"classes": len(dataset.classes), "channels": channels, "image_size": height}
    for name, value in wanted.items():
        if spec.arguments.get(name, value) != value:
            raise InputError(f"the imported model's {name} must be {value}, but got {spec.arguments[name]}.")
