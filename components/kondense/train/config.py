"""The parameters of the train stage."""

import dataclasses

from kondense.config import option
from kondense.errors import InputError
from kondense.training.settings import TrainingConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Which network to train, or from where to take a trained one."""

    network: str = option("lenet5", "built-in name, torchvision:<name>, or package.module:factory")
    width: float = option(1.0, "multiplier of the network's channels", interval="(0, 16]")
    import_uri: str = option(
        "",
        "take a trained model instead of training: a model artifact's directory or a .safetensors state dict of"
        " `network`, as a path, minio:// or s3://",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.network.strip():
            raise InputError(f"network must be a name, but got {self.network!r}.")
