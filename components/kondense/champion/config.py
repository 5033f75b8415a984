"""The parameters of the champion stage."""

import dataclasses

from kondense.config import Config, option
from kondense.errors import InputError
from kondense.publish.config import check_model_name


@dataclasses.dataclass(frozen=True)
class ChampionConfig(Config):
    """The published champion, and when to train a challenger."""

    model_name: str = option("", "name of the published model; empty for <network>-<data set>")
    network: str = option("lenet5", "network in the default name")
    store_uri: str = option(
        "minio://kondense", "store of published models: minio://bucket/prefix, s3://bucket/prefix or a path"
    )
    always: bool = option(False, "train a challenger even if the champion was made from the same data")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_name:
            check_model_name(self.model_name)
        if not self.store_uri:
            raise InputError("store_uri must be minio://bucket/prefix, s3://bucket/prefix or a path, but got ''.")
