"""The parameters of data_prep."""

import dataclasses

from kondense.config import Config, option
from kondense.errors import InputError

SOURCES = {  # data set -> kondense.data.collection.Source
    "fashion_mnist": "kondense.data.fashion_mnist:SOURCE",
    "cifar10": "kondense.data.cifar:CIFAR10",
    "cifar100": "kondense.data.cifar:CIFAR100",
    "digits": "kondense.data.digits:SOURCE",
    "folder": "kondense.data.folder:SOURCE",
}
DATASETS = tuple(SOURCES)
CHANNELS = (0, 1, 3)


@dataclasses.dataclass(frozen=True)
class DataPrepConfig(Config):
    """The images and their split."""

    dataset_name: str = option(
        "fashion_mnist",
        "data set: folder is a folder of images per class; digits needs no files, the others are downloaded unless the"
        " source holds their files",
        choices=DATASETS,
    )
    source: str = option(
        "",
        "location of its files: a directory, s3://bucket/prefix or minio://bucket/prefix; empty searches the usual"
        " directories",
    )
    validation_size: int = option(
        0, "number of training images kept for validation; 0 takes one in twelve (5,000 of 60,000)", interval="[0, inf)"
    )
    test_fraction: float = option(
        0.2, "fraction kept for the test if the data set has no test images (digits, most folders)", interval="(0, 1)"
    )
    limit: int = option(0, "maximum number of training images and of test images; 0 takes all", interval="[0, inf)")
    image_size: int = option(
        0, "side in pixels to which images are resized; 0 keeps the size (digits: 16)", interval="[0, 4096]"
    )
    channels: int = option(0, "1 converts images to grey, 3 to colour; 0 keeps the channels", choices=CHANNELS)
    seed: int = option(0, "seed of the split", interval="[0, 2147483647]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset_name == "folder" and not self.source:
            raise InputError("source must be the folder of images if dataset_name is folder, but it is empty.")
        if self.dataset_name == "digits" and self.source:
            raise InputError(f"source must be empty for digits (they come with scikit-learn), but got {self.source!r}.")
