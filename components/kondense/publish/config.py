"""The parameters of the publish stage."""

import dataclasses
import re

from kondense.config import Config, option
from kondense.errors import InputError

OBJECTIVES = ("bytes", "latency", "none")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclasses.dataclass(frozen=True)
class PublishConfig(Config):
    """The store of published models, and the gate before publication."""

    model_name: str = option(
        "", "name of the published model: 1 to 63 of a-z, 0-9, dash and underscore; empty for <network>-<data set>"
    )
    store_uri: str = option(
        "minio://kondense", "store of published models: minio://bucket/prefix, s3://bucket/prefix or a path"
    )
    max_test_drop: float = option(
        0.01, "maximum drop of the test accuracy below the teacher's, a fraction", interval="[0, 1)"
    )
    champion_tolerance: float = option(
        0.002, "maximum drop of the test accuracy below the champion's, a fraction", interval="[0, 1)"
    )
    objective: str = option(
        "bytes", "second measure, beside accuracy, that must not be worse than the champion's", choices=OBJECTIVES
    )
    objective_tolerance: float = option(
        0.05, "fraction by which the objective may exceed the champion's", interval="[0, 10]"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_name:
            check_model_name(self.model_name)
        if not self.store_uri:
            raise InputError("store_uri must be minio://bucket/prefix, s3://bucket/prefix or a path, but got ''.")


def check_model_name(name: str) -> None:
    """Raise InputError unless ``name`` is valid for a published model."""
    if not NAME.fullmatch(name):
        raise InputError(
            "model_name must be 1 to 63 of a-z, 0-9, dash and underscore and begin with a letter or digit,"
            f" but got {name!r}."
        )


def derived_model_name(network: str, dataset: str) -> str:
    """Return the default name of a model: ``lenet5`` on ``fashion_mnist`` -> ``lenet5-fashion_mnist``."""
    return re.sub(r"[^a-z0-9_-]+", "-", f"{network}-{dataset}".lower()).strip("-_")[:63]
