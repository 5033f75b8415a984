"""The shape and the classes of a run's images, known before they are read."""

import contextlib
import pkgutil
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kondense.data.collection import Source
from kondense.data.dataset import Dataset
from kondense.data.entries import is_data
from kondense.data.picture import Geometry
from kondense.data_prep.config import SOURCES, DataPrepConfig
from kondense.errors import InputError
from kondense.store.open import open_store
from kondense.store.store import Store, check_key

Shape = tuple[int, int, int]
KNOWN: dict[str, tuple[Shape, int]] = {  # shape of one image, [C, H, W], and number of classes, of the files
    "fashion_mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "digits": ((1, 16, 16), 10),
}
TRAIN, OTHERS = 16, 8  # images of the random data set
MOST_CLASSES = 128
FETCHED = 16  # pictures of a store


def known_images(config: DataPrepConfig) -> tuple[Shape, int] | None:
    """Return the shape [C, H, W] and the number of classes of a data set; None if only its files tell.

    A folder on this machine is listed, and the headers of its pictures are read; a store is listed, and a few of its
    pictures are fetched.

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
    source: Source = pkgutil.resolve_name(SOURCES[config.dataset_name])
    if "://" in config.source:
        with tempfile.TemporaryDirectory(prefix="kondense-preflight-") as scratch:
            sampled(open_store(config.source), config.source, source.wanted, Path(scratch))
            return _collected(source, config, Path(scratch))
    directory = Path(config.source).expanduser()
    return _collected(source, config, directory) if directory.is_dir() else None


def _collected(source: Source, config: DataPrepConfig, directory: Path) -> tuple[Shape, int] | None:
    geometry = Geometry(config.size, config.channels, config.steps, config.interpolation)
    with contextlib.suppress(IndexError):
        collection = source.collect(directory, geometry, config.max_pixels)
        images_CHW = collection.train.images[np.arange(1)]
        channels, height, width = images_CHW.shape[1:]
        return (channels, height, width), len(collection.classes)
    return None


def sampled(store: Store, uri: str, wanted: Callable[[str], bool], directory: Path) -> None:
    """Make the folder of a store in ``directory``: all of its folders, but ``FETCHED`` of its pictures at most.

    The pictures are drawn from the list. A folder without one of them gets a copy, so that its class counts.

    Args:
        store: of the pictures.
        uri: its address, for the message.
        wanted: tells by its base name whether a file is a picture.
        directory: empty.

    Raises:
        InputError: it holds no picture.
        StoreError: it cannot be reached.
    """
    keys = [key for key in store.list("") if is_data(key)]
    pictures = [key for key in keys if wanted(key.rpartition("/")[2])]
    if not pictures:
        raise InputError(f"source {uri} holds no file of this data set.")
    for key in keys:
        check_key(key, reading=True)
        Path(directory, key).parent.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(0).permutation(len(pictures))[:FETCHED]  # a stride may meet one kind only
    chosen = [pictures[number] for number in drawn]
    for key in chosen:
        store.download_file(key, Path(directory, key))
    for key in {key.rpartition("/")[0]: key for key in pictures}.values():
        if not any(path.is_file() for path in Path(directory, key).parent.iterdir()):
            copy = Path(directory, key).with_suffix(Path(chosen[0]).suffix)
            shutil.copyfile(Path(directory, chosen[0]), copy)


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
