"""The parameters of the train stage."""

import dataclasses

from kondense.config import option
from kondense.errors import InputError
from kondense.training.settings import TrainingConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """The network to train, or the location of a trained one."""

    network: str = option("lenet5", "name of a built-in network, torchvision:NAME, timm:NAME or package.module:factory")
    width: float = option(1.0, "multiplier of the network's channel counts", interval="(0, 16]")
    import_uri: str = option(
        "",
        "import a trained model instead of training one: the directory of a model artifact, or a .safetensors state"
        " dict of `network`; a path, minio:// or s3://",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.network.strip():
            raise InputError(f"network must be a name, but got {self.network!r}.")
