"""The parameters of the training loop, which the Configs of train, prune, distill and quantize inherit."""

import dataclasses
from typing import Self

from kondense.config import Config, option
from kondense.errors import InputError

SCHEDULES = ("constant", "multistep", "cosine", "one_cycle")
IMAGE_AUGMENTATIONS = ("crop", "flip", "resized_crop", "rand_augment")  # of single images
BATCH_AUGMENTATIONS = ("mixup", "cutmix")  # one of them for each batch
AUGMENTATIONS = (*IMAGE_AUGMENTATIONS, *BATCH_AUGMENTATIONS)
CLASS_WEIGHTS = ("none", "balanced")
# The default distillation of a pruned LeNet-5 on 1,318 digits ends at 93.3 % with it (7.5 % without: it diverged), and
# gradients of the default run's steps after `train` on Fashion-MNIST are shorter (at most 5.8): it leaves their bits.
CLIP_NORM = 10.0
DEVICES = ("auto", "cpu", "cuda")
# Factor of the default learning rate, by optimizer: Adam's updates do not shrink with the gradient.
OPTIMIZERS = {"sgd": 1.0, "adamw": 0.02, "muon": 1.0}
# Factor of the default learning rate for weights that come from elsewhere, which training's own rates would wash out. A
# common choice for fine-tuning; not measured on published weights.
IMPORTED = 0.1
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Config):
    """The parameters of training. Schedules depend on the absolute epoch and on ``max_epochs`` only."""

    default_rate = 0.05  # peak learning rate of SGD from random weights

    epochs: int = option(8, "epochs to train", interval="[1, 100000]")
    max_epochs: int = option(
        0,
        "epochs that the learning rate schedule spans; 0: `epochs`. In a search: the most epochs of a trial",
        interval="[0, 100000]",
    )
    batch_size: int = option(128, "images per step", interval="[1, 65536]")
    learning_rate: float = option(
        0.0,
        "peak learning rate; 0: 0.05, with adamw 0.001, and a tenth of it for imported weights",
        interval="[0, 100]",
    )
    optimizer: str = option(
        "sgd",
        "sgd; adamw, for transformers and ConvNeXt; muon: orthogonalises the updates of weights with a side of up to"
        " 128 (faster after channel pruning)",
        choices=tuple(OPTIMIZERS),
    )
    momentum: float = option(0.9, "momentum of SGD (Nesterov when above 0); first beta of AdamW", interval="[0, 1)")
    weight_decay: float = option(
        5e-4, "L2 penalty on weights (not on biases and norms); decoupled in adamw and muon", interval="[0, 1]"
    )
    layer_decay: float = option(
        1.0, "factor of the learning rate from each layer to the one before it, for fine-tuning", interval="(0, 1]"
    )
    clip_norm: float = option(
        CLIP_NORM, "largest norm of the gradient of a step; longer ones are scaled to it; 0: any", interval="[0, inf)"
    )
    schedule: str = option("cosine", "learning rate schedule", choices=SCHEDULES)
    warmup_epochs: float = option(0.5, "epochs of linear warm-up", interval="[0, 1000]")
    label_smoothing: float = option(0.0, "probability mass taken from the true label", interval="[0, 1)")
    class_weights: str = option(
        "none",
        "weights of the classes in the loss; balanced: by their number of training images",
        choices=CLASS_WEIGHTS,
    )
    auxiliary_weight: float = option(
        0.3, "weight of the loss of each auxiliary head (GoogLeNet: 0.3)", interval="[0, 100]"
    )
    augment: str = option(
        "none",
        "none, or names joined by +: crop (2 pixels of padding), flip (left and right), resized_crop, rand_augment,"
        " mixup, cutmix; crop_flip is crop+flip",
    )
    averaging: float = option(
        0.0, "decay per step of the moving average of the weights; 0: no average", interval="[0, 1)"
    )
    device: str = option("auto", "device to train on; auto: a GPU if there is one", choices=DEVICES)
    devices: int = option(
        0,
        "processes that train together, each on a GPU of its own and on its part of every batch; 0: as many as the"
        " machine has GPUs, 1 on a CPU and with `compile`",
        interval="[0, 1024]",
    )
    sync_batch_norm: bool = option(
        True,
        "several devices: batch norms use the statistics of the whole batch, as on one device; false: each those of its"
        " part",
    )
    precision: str = option(
        "auto", "arithmetic; auto: bfloat16 on GPUs that support it, else float32", choices=PRECISIONS
    )
    compile: bool = option(False, "compile the network with torch.compile (for long runs)")
    recompute_activations: bool = option(
        False,
        "activation checkpointing: blocks of the network keep only their inputs and are computed again in the backward"
        " pass; less memory, up to a third more time, the same result",
    )
    seed: int = option(0, "seed of all random numbers", interval="[0, 2147483647]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_epochs and self.max_epochs < self.epochs:
            raise InputError(f"max_epochs must be 0 or at least epochs ({self.epochs}), but got {self.max_epochs}.")
        if self.compile and self.devices > 1:
            raise InputError(f"compile must be false with several devices, but got true with devices {self.devices}.")
        if self.compile and self.recompute_activations:
            raise InputError("recompute_activations must be false with compile, but got true.")
        for name in self.augmentations:
            if name not in AUGMENTATIONS:
                known = ", ".join(("none", "crop_flip", *AUGMENTATIONS))
                raise InputError(f"augment must be of {known}, joined by +, but got {name!r} in {self.augment!r}.")

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return True

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names in ``augment``, in the order in which they are applied."""
        if self.augment in ("none", ""):
            return ()
        given = self.augment.replace("crop_flip", "crop+flip").split("+")
        return tuple(sorted(given, key=lambda name: AUGMENTATIONS.index(name) if name in AUGMENTATIONS else -1))

    @property
    def rate(self) -> float:
        """The peak learning rate: the default one of the stage and the optimizer, unless one is given."""
        return self.learning_rate or self._default_rate

    @property
    def rate_is_default(self) -> bool:
        """Whether the peak learning rate is a default one, that of imported weights too."""
        return self.learning_rate in (0.0, IMPORTED * self._default_rate)

    @property
    def _default_rate(self) -> float:
        return self.default_rate * OPTIMIZERS.get(self.optimizer, 1.0)

    def for_imported(self) -> Self:
        """Return the Config for weights that come from elsewhere: with a smaller learning rate, unless one is given."""
        return dataclasses.replace(self, learning_rate=self.learning_rate or IMPORTED * self.rate)

    @property
    def horizon(self) -> int:
        """The number of epochs that the schedule spans."""
        return self.max_epochs or self.epochs
