"""Train a network, the teacher of all further steps, or import a trained one."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.errors import InputError
from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, doubts_on, predict
from kondense.measuring.size import count_parameters
from kondense.networks.allowed import allowing
from kondense.networks.build import NetworkSpec, build
from kondense.networks.names import weights_of
from kondense.preprocessing import difference
from kondense.train.config import TrainConfig
from kondense.train.imported import import_model
from kondense.training.auxiliary import IMAGES, drop_auxiliary
from kondense.training.checkpoint import Checkpoint
from kondense.training.fit import fit
from kondense.training.masking import zero_masked
from kondense.training.transform import Result, check_fits, check_float, copied, run_transform

AUXILIARY = ("aux1", "aux2", "AuxLogits")  # of torchvision's GoogLeNet and Inception


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
    if model is not None:
        check_float("train", model)
        model, origin = copied(model), ""
    else:
        model, origin = _made(config, dataset)
    check_fits(f"network {model.network.name!r}", model, dataset)
    curve = []
    if not origin or config.replace_head or config.fine_tune:
        if origin:
            config = config.for_imported()
            # The weights are no part of the checkpoint's key, which has only their address.
            checkpoint = checkpoint.child(state_digest(model.module)) if checkpoint else None
        curve = fit(model.module, dataset, config, masks=model.masks(), checkpoint=checkpoint)
    zero_masked(model.module, model.masks())
    model = without_auxiliary(model, dataset)
    metrics = _metrics(model, dataset, curve)
    verbs = [f"import {model.network.name}"] if origin else []
    verbs += [f"train {'it' if origin else model.network.name} for {config.epochs} epochs"] if curve else []
    return Result(model, metrics, ", ".join(verbs), curve, details={"imported": origin} if origin else {})


def _made(config: TrainConfig, dataset: Dataset) -> tuple[Model, str]:
    """Return the network to train, or the imported one, and where its weights come from; "" for random ones."""
    spec = network_spec(config, dataset)
    published = weights_of(config.network)
    if not (config.import_uri or published):
        for name in ("replace_head", "fine_tune"):
            if getattr(config, name):
                raise InputError(f"{name} must be false for a new network; import_uri or network@WEIGHTS imports one.")
        return Model(build(spec, seed=config.seed), spec), ""
    with allowing(networks=[config.network]):
        found = import_model(config.import_uri, spec, replace_head=config.replace_head, seed=config.seed)
    _check_arguments(found.model.network, dataset)
    if found.preprocessing and (told := difference(found.preprocessing, dataset.preprocessing)):
        LOG.warning(told)
    return found.model, config.import_uri or config.network


def without_auxiliary(model: Model, dataset: Dataset) -> Model:
    """Return the model without auxiliary heads, which only training uses, in place."""
    heads = [name for name in AUXILIARY if isinstance(getattr(model.module, name, None), nn.Module)]
    if not heads or not model.network.name.startswith("torchvision:"):
        images = dataset.normalise(dataset.train.images[:IMAGES])
        drop_auxiliary(model.module, images, len(dataset.classes))
        names = model.module.state_dict().keys()
        return dataclasses.replace(model, masked=tuple(name for name in model.masked if name in names))
    for name in heads:
        setattr(model.module, name, None)
    model.module.aux_logits = False  # type: ignore[assignment]
    spec = NetworkSpec(model.network.name, {**model.network.arguments, "aux_logits": False})
    return dataclasses.replace(model, network=spec)


def state_digest(module: nn.Module) -> str:
    """Return a digest of a network's weights."""
    return hashlib.sha256(save(module.state_dict())).hexdigest()[:16]


def network_spec(config: TrainConfig, dataset: Dataset) -> NetworkSpec:
    """Return the spec of the configured network for a dataset's images and classes."""
    channels, height, width = dataset.shape
    size = height if height == width else [height, width]
    arguments: dict[str, Any] = {"classes": len(dataset.classes), "channels": channels, "image_size": size}
    if config.width != 1.0:
        arguments["width"] = config.width
    return NetworkSpec(config.network, arguments)


def _metrics(model: Model, dataset: Dataset, curve: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics; those of a trained model were measured at the end of its last epoch."""
    for doubt in doubts_on(model.module.eval(), dataset.validation, dataset):
        LOG.warning(f"network {model.network.name!r}: {doubt}")
    if curve:
        measured = curve[-1]["validation_accuracy"]
    else:
        measured = accuracy(predict(model.module, dataset.validation, dataset), dataset.validation.labels)
    metrics = {"validation_accuracy": measured, "parameters": float(count_parameters(model.module))}
    return metrics | ({"train_loss": curve[-1]["train_loss"]} if curve else {})


def _check_arguments(spec: NetworkSpec, dataset: Dataset) -> None:
    channels, height, width = dataset.shape
    size = height if height == width else [height, width]
    wanted = {"classes": len(dataset.classes), "channels": channels, "image_size": size}
    for name, value in wanted.items():
        if spec.arguments.get(name, value) != value:
            raise InputError(f"the imported model's {name} must be {value}, but got {spec.arguments[name]}.")
