"""The parameters of data_prep."""

import dataclasses

from kondense.config import Config, option
from kondense.errors import InputError

DATASETS = ("fashion_mnist", "cifar10", "cifar100", "digits", "folder")
CHANNELS = (0, 1, 3)


@dataclasses.dataclass(frozen=True)
class DataPrepConfig(Config):
    """Which images, and how they are split."""

    dataset_name: str = option(
        "fashion_mnist",
        "which data set: folder is a folder of images per class; digits needs nothing, the others need the internet"
        " unless the source holds their files",
        choices=DATASETS,
    )
    source: str = option(
        "",
        "where its files are: a directory, s3://bucket/prefix or minio://bucket/prefix; empty tries the usual places",
    )
    validation_size: int = option(
        0, "training images kept for validation; 0 takes one in twelve (5,000 of 60,000)", interval="[0, inf)"
    )
    test_fraction: float = option(
        0.2, "share kept for the test where the data set has no test images (digits, most folders)", interval="(0, 1)"
    )
    limit: int = option(
        0, "most images to take of the training and of the test images each; 0 takes all", interval="[0, inf)"
    )
    image_size: int = option(0, "side in pixels that images are resized to; 0 keeps theirs", interval="[0, 4096]")
    channels: int = option(0, "1 makes images grey, 3 makes them colour; 0 keeps theirs", choices=CHANNELS)
    seed: int = option(0, "seed of the permutation that splits", interval="[0, 2147483647]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset_name == "folder" and not self.source:
            raise InputError("source must name the folder of images when dataset_name is folder, but it is empty.")
        if self.dataset_name == "digits" and self.source:
            raise InputError(f"source must be empty for digits (they come with scikit-learn), but got {self.source!r}.")
