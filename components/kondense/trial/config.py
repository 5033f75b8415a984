"""The parameters of a trial: one set of hyperparameters, as Katib substitutes them."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from kondense.config import Config, check_choice, option
from kondense.errors import InputError
from kondense.json_text import json_object
from kondense.recipes import AMOUNTS, Composed, compose
from kondense.stages import STAGES
from kondense.train.config import TrainConfig
from kondense.training.settings import DEVICES

# The metrics of a trial, by the names that an Experiment's objective uses.
METRICS = ("score", "validation_accuracy", "validation_loss", "size_bytes", "latency_ms", "seconds")
TUNED = ("train", *AMOUNTS)  # the stages whose fields are parameters of a trial: --train.epochs, --prune.sparsity
FIXED = ("import_uri", "device", "seed")  # fields that the trial's own parameters set


@dataclasses.dataclass(frozen=True)
class TrialConfig(Config):
    """The recipe of a trial, the parameters of its stages, and the terms of its score.

    A parameter of a stage, ``<stage>.<field>``, applies to every step of the stage, unless the recipe states the field.
    The resource of Hyperband and BOHB is the epochs of the stages to which the Experiment's template gives it: the
    training (``--train.epochs``), or the fine-tuning after a given teacher (``--prune.epochs``, ``--distill.epochs``).
    Their ``max_epochs`` is the maximum resource, so that a trial of 3 epochs is the beginning of the trial of 9 with
    the same hyperparameters.
    """

    dataset_uri: str = option("", "the Dataset artifact: a path, minio:// or s3://")
    store_uri: str = option("", "store of checkpoints and of the trial's model; empty: neither is kept")
    trial_name: str = option("", "name of the trial, under which its model is kept")
    teacher_uri: str = option("", "a trained model to start from; empty: train one")
    recipe: str = option("train", "steps after train, such as prune:l1:0.5 > distill > quantize:static")
    settings: str = option("", "parameters of the stages as JSON, texts by <stage>.<field>")
    size_budget_bytes: int = option(0, "size up to which the score has no penalty; 0: any size", interval="[0, inf)")
    size_weight: float = option(0.02, "accuracy that each doubling above the size budget costs", interval="[0, 1]")
    latency_budget_ms: float = option(
        0.0, "latency up to which the score has no penalty; 0: any latency", interval="[0, inf)"
    )
    latency_weight: float = option(
        0.02, "accuracy that each doubling above the latency budget costs", interval="[0, 1]"
    )
    metrics: str = option("", "metrics to report to Katib, those that it declares, joined by commas; empty: all")
    report_epochs: bool = option(
        False, "also report validation_accuracy after every epoch, for Experiments that take the latest value"
    )
    device: str = option("auto", "device of the training; auto: a GPU if there is one", choices=DEVICES)
    seed: int = option(0, "seed of all randomness, in every stage", interval="[0, 2147483647]")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in filter(None, self.metrics.split(",")):
            check_choice("metrics", name.strip(), METRICS)
        if not self.dataset_uri:
            raise InputError("dataset_uri must name a Dataset artifact, but got ''.")
        if self.store_uri and not self.trial_name:
            raise InputError("store_uri needs a trial_name, but got ''.")
        self._parsed(json_object(self.settings or "{}", "settings"))
        _ = self.train, self.steps  # check them before any work

    @property
    def reported(self) -> tuple[str, ...]:
        """The names of the metrics to report to Katib."""
        return tuple(name.strip() for name in self.metrics.split(",") if name.strip()) or METRICS

    def counts(self, metric: str) -> bool:
        """Return whether a metric is reported, or part of a score that is."""
        budgets = {"size_bytes": self.size_budget_bytes, "latency_ms": self.latency_budget_ms}
        return metric in self.reported or bool("score" in self.reported and budgets.get(metric))

    @functools.cached_property
    def train(self) -> TrainConfig:
        """The Config of the training, or of the import of the teacher."""
        try:
            return TrainConfig.from_strings({**self._texts("train"), "import_uri": self.teacher_uri})
        except ValueError as error:
            raise InputError(f"train: {error}") from None

    @functools.cached_property
    def steps(self) -> tuple[Composed, ...]:
        """The steps of the recipe."""
        return compose(self.recipe, settings={stage: self._texts(stage) for stage in AMOUNTS})

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters by name, with ``train.<field>`` for every field, and those that ``settings`` gives."""
        fields = {name: value for name, value in super().to_dict().items() if name != "settings"}
        trained = {f"train.{name}": value for name, value in self.train.to_dict().items()}
        return fields | self._parsed(json_object(self.settings or "{}", "settings")) | trained

    @classmethod
    def parameters(cls) -> dict[str, tuple[type, dataclasses.Field[Any]]]:
        """Return the trial's own parameters, and those of its stages as ``<stage>.<field>``."""
        known = super().parameters()
        del known["settings"]
        for stage in TUNED:
            declared = STAGES[stage].config_class.parameters()
            known |= {f"{stage}.{name}": declared[name] for name in declared if name not in FIXED}
        return known

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> "TrialConfig":
        """Return a Config from texts, as flags and Katib give them (see ``Config.from_strings``)."""
        fields = {name: value for name, value in cls._parsed(values).items() if "." not in name}
        return cls(**fields, settings=json.dumps({name: text for name, text in values.items() if "." in name}))

    def _texts(self, stage: str) -> dict[str, str]:
        """Return the texts of a stage's parameters."""
        texts: dict[str, str] = json_object(self.settings or "{}", "settings")
        fields = {name.removeprefix(f"{stage}."): text for name, text in texts.items() if name.startswith(f"{stage}.")}
        return {"seed": str(self.seed), "device": self.device, **fields}
