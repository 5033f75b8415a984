"""The parameters of the train stage."""

import dataclasses

from kondense.config import option
from kondense.errors import InputError
from kondense.networks.names import weights_of
from kondense.training.settings import TrainingConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """The network to train, or the location of a trained one."""

    network: str = option(
        "lenet5",
        "name of a built-in network, torchvision:NAME, timm:NAME or package.module:factory; with @WEIGHTS the published"
        " weights of torchvision or timm (torchvision:resnet18@IMAGENET1K_V1), with #KEY the logits among the outputs",
    )
    width: float = option(1.0, "multiplier of the network's channel counts", interval="(0, 16]")
    import_uri: str = option(
        "",
        "import a trained model instead of training one: the directory of a model artifact, or weights of `network` in"
        " a .safetensors, .pt, .pth or .ckpt file; a path, minio:// or s3://",
    )

    # In the first epoch of the default run a gradient of 15.5 was measured; after it they are shorter than 9.
    clip_norm: float = option(
        20.0, "largest norm of the gradient of a step; longer ones are scaled to it; 0: any", interval="[0, inf)"
    )
    replace_head: bool = option(
        False,
        "give imported weights a new last layer for the data set's classes and train the network (transfer learning)",
    )
    fine_tune: bool = option(False, "train imported weights instead of taking them as they are")

    @property
    def trains(self) -> bool:
        """Whether there is anything to train: imported weights may be taken as they are."""
        imported = bool(self.import_uri or weights_of(self.network))
        return not imported or self.replace_head or self.fine_tune

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.network.strip():
            raise InputError(f"network must be a name, but got {self.network!r}.")
