"""The frame of every stage that makes a model: load, check, transform, record, save."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kondense.artifacts.images import Images
from kondense.artifacts.lineage import stage_record
from kondense.artifacts.model import Model, load_model, model_digest, save_model
from kondense.artifacts.reparametrized import baked_copy
from kondense.config import Config
from kondense.data.dataset import Dataset, dataset_digest, load_dataset
from kondense.display import html_table, metric_rows, text_table
from kondense.errors import InputError, ShortfallError
from kondense.logging import LOG
from kondense.networks.build import check_images
from kondense.preprocessing import difference
from kondense.processes import alone, current
from kondense.training.checkpoint import open_checkpoint
from kondense.training.settings import TrainingConfig


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """The outcome of a technique.

    Attributes:
        model: the new model; its lineage is that of the model it was made from.
        metrics: its figures, finite numbers.
        summary: the step in words, such as ``prune l1 50% of MACs``.
        curve: one point per trained epoch.
        details: further JSON values for the lineage record.
        shortfall: why the request was not met, although the model is the closest to it; empty if it was met.
    """

    model: Model
    metrics: Mapping[str, float]
    summary: str
    curve: Sequence[Mapping[str, float]] = ()
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shortfall: str = ""

    def __str__(self) -> str:
        return "\n".join(filter(None, [self.summary, text_table(metric_rows(self.metrics)), self.shortfall]))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(metric_rows(self.metrics), title=". ".join(filter(None, [self.summary, self.shortfall])))


def run_transform(
    stage: str,
    config: Config,
    technique: Callable[..., Result],
    *,
    dataset_dir: Path,
    output_dir: Path,
    model_dir: Path | None = None,
    teacher_dirs: Mapping[str, Path] | None = None,
) -> dict[str, float]:
    """Run ``technique`` on artifacts, write its model and return its metrics.

    Args:
        stage: the stage's name, part of the checkpoint's key.
        config: the stage's parameters.
        technique: called as ``technique(model, dataset, config, teachers=..., checkpoint=...)``; ``model`` is None
            without ``model_dir``, ``teachers`` are models by role.
        dataset_dir: a Dataset artifact.
        output_dir: directory of the new Model artifact.
        model_dir: the Model artifact to transform.
        teacher_dirs: further Model artifacts by role, such as ``teacher``.

    Raises:
        InputError: a model does not fit the dataset, or a request that the technique rejects.
        ShortfallError: the artifact is written, but only the closest to the request.
    """
    dataset = load_dataset(dataset_dir)
    directories = ({"model": model_dir} if model_dir else {}) | dict(teacher_dirs or {})
    models = {role: load_model(directory) for role, directory in directories.items()}
    for role, model in models.items():
        check_fits(role, model, dataset)
    config = for_weights(config, models.values())
    inputs = {"dataset": dataset_digest(dataset_dir)}
    inputs |= {role: model_digest(directory) for role, directory in directories.items()}
    checkpoint = open_checkpoint(stage, config, inputs, [model.network.name for model in models.values()])
    result = technique(models.pop("model", None), dataset, config, teachers=models, checkpoint=checkpoint)
    if not current().first:
        return dict(result.metrics)  # the first process writes, and tells a shortfall
    if current().several:
        result = dataclasses.replace(result, details={**result.details, "devices": current().count})
    with alone():
        save_model(output_dir, recorded(stage, config, result, inputs, dataset))
    if result.shortfall:
        raise ShortfallError(result.shortfall)
    return dict(result.metrics)


def for_weights(config: Config, models: Iterable[Model]) -> Config:
    """Return the Config with the learning rate for weights that come from elsewhere, if those of a model do."""
    if isinstance(config, TrainingConfig) and any(map(is_imported, models)):
        return config.for_imported()
    return config


def is_imported(model: Model) -> bool:
    """Return whether a model's weights were first trained elsewhere: its lineage begins with an import, or is empty."""
    return not model.lineage or bool(model.lineage[0].get("details", {}).get("imported"))


def recorded(stage: str, config: Config, result: Result, inputs: Mapping[str, str], dataset: Dataset) -> Model:
    """Return the result's model with the dataset's images and the stage's record at the end of its lineage."""
    record = stage_record(
        stage,
        config,
        inputs=inputs,
        metrics=result.metrics,
        summary=result.summary,
        curves=result.curve,
        details={**result.details, **({"shortfall": result.shortfall} if result.shortfall else {})},
    )
    return dataclasses.replace(result.model, lineage=(*result.model.lineage, record), images=Images.of(dataset))


def check_fits(role: str, model: Model, dataset: Dataset) -> None:
    """Raise InputError unless the model takes the dataset's images and returns one logit per class.

    Images that are normalised or resized otherwise than those that the model was trained on are told.
    """
    check_images(f"the {role}", model.module, dataset.shape, len(dataset.classes), model.network)
    if model.images and (text := difference(model.images.preprocessing, dataset.preprocessing)):
        LOG.warning(f"{role}: {text}")


def check_float(stage: str, model: Model) -> None:
    """Raise InputError if the model is quantized already."""
    if model.quantized or model.activations:
        raise InputError(f"{stage} needs a float model, but got a quantized one; quantize last, and once.")


def copied(model: Model) -> Model:
    """Return the model with a copy of its network, on the CPU and in evaluation mode."""
    return dataclasses.replace(model, module=baked_copy(model.module).to("cpu").eval())
