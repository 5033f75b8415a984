"""The shape and the classes of a run's images, known before they are read."""

import contextlib
import pkgutil
from pathlib import Path

import numpy as np

from kondense.data.collection import Source
from kondense.data.dataset import Dataset
from kondense.data.picture import Geometry
from kondense.data_prep.config import SOURCES, DataPrepConfig

Shape = tuple[int, int, int]
KNOWN: dict[str, tuple[Shape, int]] = {  # shape of one image, [C, H, W], and number of classes, of the files
    "fashion_mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "digits": ((1, 16, 16), 10),
}
TRAIN, OTHERS = 16, 8  # images of the random data set
MOST_CLASSES = 128


def known_images(config: DataPrepConfig) -> tuple[Shape, int] | None:
    """Return the shape [C, H, W] and the number of classes of a data set; None if only its files tell.

    A folder on this machine is listed, and the headers of its pictures are read.

    Raises:
        InputError: the folder makes no data set.
    """
    if config.dataset_name == "folder":
        return _of_folder(config)
    if config.dataset_name not in KNOWN:
        return None
    (channels, height, width), classes = KNOWN[config.dataset_name]
    height, width = config.size or (height, width)
    return (config.channels or channels, height, width), classes


def _of_folder(config: DataPrepConfig) -> tuple[Shape, int] | None:
    if not Path(config.source).is_dir():
        return None  # in a store
    source: Source = pkgutil.resolve_name(SOURCES[config.dataset_name])
    geometry = Geometry(config.size, config.channels, config.steps, config.interpolation)
    with contextlib.suppress(IndexError):
        collection = source.collect(Path(config.source), geometry, config.max_pixels)
        images_CHW = collection.train.images[np.arange(1)]
        channels, height, width = images_CHW.shape[1:]
        return (channels, height, width), len(collection.classes)
    return None


def random_dataset(shape: Shape, classes: int, *, seed: int = 0) -> Dataset:
    """Return a small data set of random images, to try a run's steps on.

    Args:
        shape: of one image, [C, H, W].
        classes: number of classes.
        seed: of the images.
    """
    rng = np.random.default_rng(seed)

    # Every class has an image, unless they are too many for a batch or two.
    train = max(TRAIN, min(classes, MOST_CLASSES))

    def pair(images: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(0, 256, (images, *shape), np.uint8), np.arange(images, dtype=np.int64) % classes

    names = [str(number) for number in range(classes)]
    return Dataset.from_arrays(pair(train), pair(OTHERS), pair(OTHERS), classes=names, name="random")
