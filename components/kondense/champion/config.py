"""The parameters of the champion stage."""

import dataclasses

from kondense.config import Config, option
from kondense.errors import InputError
from kondense.publish.config import check_model_name


@dataclasses.dataclass(frozen=True)
class ChampionConfig(Config):
    """Which published model is the champion, and whether known data are enough to challenge it."""

    model_name: str = option("", "the published model's name; empty for <network>-<data set>")
    network: str = option("lenet5", "the network that a name is made of when none is given")
    store_uri: str = option(
        "minio://kondense", "where it is published: minio://bucket/prefix, s3://bucket/prefix or a path"
    )
    always: bool = option(False, "challenge it even when it was made from these very data")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_name:
            check_model_name(self.model_name)
        if not self.store_uri:
            raise InputError("store_uri must be minio://bucket/prefix, s3://bucket/prefix or a path, but got ''.")
