"""The parameters of the training loop, which the Configs of train, prune, distill and quantize inherit."""

import dataclasses

from kondense.config import Config, option
from kondense.errors import InputError

SCHEDULES = ("constant", "multistep", "cosine", "one_cycle")
AUGMENTATIONS = ("none", "crop", "crop_flip")
DEVICES = ("auto", "cpu", "cuda")
OPTIMIZERS = ("sgd", "muon")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Config):
    """The parameters of training. Schedules depend on the absolute epoch and on ``max_epochs`` only."""

    epochs: int = option(8, "epochs to train", interval="[1, 100000]")
    max_epochs: int = option(
        0,
        "epochs that the learning rate schedule spans; 0: `epochs`. A trial with fewer epochs than the longest sets it",
        interval="[0, 100000]",
    )
    batch_size: int = option(128, "images per step", interval="[1, 65536]")
    learning_rate: float = option(0.05, "peak learning rate", interval="(0, 100]")
    optimizer: str = option(
        "sgd",
        "sgd; muon: orthogonalises the updates of weights with a side of up to 128 (faster after channel pruning)",
        choices=OPTIMIZERS,
    )
    momentum: float = option(0.9, "momentum of SGD (Nesterov when above 0)", interval="[0, 1)")
    weight_decay: float = option(5e-4, "L2 penalty on weights (not on biases and norms)", interval="[0, 1]")
    schedule: str = option("cosine", "learning rate schedule", choices=SCHEDULES)
    warmup_epochs: float = option(0.5, "epochs of linear warm-up", interval="[0, 1000]")
    label_smoothing: float = option(0.0, "probability mass taken from the true label", interval="[0, 1)")
    augment: str = option("none", "random crops (2 pixels of padding), and horizontal flips", choices=AUGMENTATIONS)
    averaging: float = option(
        0.0, "decay per step of the moving average of the weights; 0: no average", interval="[0, 1)"
    )
    device: str = option("auto", "device to train on; auto: a GPU if there is one", choices=DEVICES)
    precision: str = option(
        "auto", "arithmetic; auto: bfloat16 on GPUs that support it, else float32", choices=PRECISIONS
    )
    compile: bool = option(False, "compile the network with torch.compile (for long runs)")
    seed: int = option(0, "seed of all random numbers", interval="[0, 2147483647]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_epochs and self.max_epochs < self.epochs:
            raise InputError(f"max_epochs must be 0 or at least epochs ({self.epochs}), but got {self.max_epochs}.")

    @property
    def horizon(self) -> int:
        """The number of epochs that the schedule spans."""
        return self.max_epochs or self.epochs
