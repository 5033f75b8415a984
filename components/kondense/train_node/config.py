"""The parameters of a node of a TrainJob, as the train_job stage gives them to its container."""

import dataclasses

from kondense.config import Config, option
from kondense.errors import InputError
from kondense.json_text import json_object
from kondense.train.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class TrainNodeConfig(Config):
    """What one node of a TrainJob trains, and where it finds and leaves it."""

    dataset_uri: str = option("", "the Dataset artifact: a path, minio:// or s3://")
    store_uri: str = option("", "store of checkpoints, of the model and of the reason of a failure")
    job: str = option("", "name of the TrainJob, under which its model is kept")
    train: str = option("{}", "parameters of train as JSON")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dataset_uri", "store_uri", "job"):
            if not getattr(self, name).strip():
                raise InputError(f"{name} must not be empty, but got {getattr(self, name)!r}.")
        _ = self.training  # check it before any work

    @property
    def training(self) -> TrainConfig:
        """The parameters of the training."""
        values = json_object(self.train, "train")
        known = {field.name for field in dataclasses.fields(TrainConfig)}
        if unknown := sorted(values.keys() - known):
            raise InputError(f"train must have parameters of train, but got {unknown[0]!r}.")
        return TrainConfig(**values)


def model_prefix(job: str) -> str:
    """Return the key below ``store_uri`` of the model that a TrainJob made."""
    return f"models/{job}"
