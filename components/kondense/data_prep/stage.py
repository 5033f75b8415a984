"""data_prep: read a data set from where it lies, split it, and write the Dataset artifact."""

import contextlib
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from kondense.data import cifar, digits, fashion_mnist, folder
from kondense.data.collection import Arrays, Collection
from kondense.data.dataset import Dataset, Split, save_dataset
from kondense.data.locate import opened
from kondense.data.pixels import mean_and_std, resized, with_channels
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.split import split
from kondense.logging import LOG


@dataclasses.dataclass(frozen=True)
class Source:
    """How to read one data set: ``collect`` it from a directory (or None), of which it needs the ``wanted`` files."""

    collect: Callable[[DataPrepConfig, Path | None], Collection]
    wanted: Callable[[str], bool]


def _folder(config: DataPrepConfig, source: Path | None) -> Collection:
    assert source is not None  # DataPrepConfig demands it
    return folder.collect(source, image_size=config.image_size, channels=config.channels)


SOURCES = {
    "fashion_mnist": Source(lambda config, source: fashion_mnist.collect(source), fashion_mnist.wanted),
    "cifar10": Source(
        lambda config, source: cifar.collect(cifar.CIFAR10, source), partial(cifar.wanted, cifar.CIFAR10)
    ),
    "cifar100": Source(
        lambda config, source: cifar.collect(cifar.CIFAR100, source), partial(cifar.wanted, cifar.CIFAR100)
    ),
    "digits": Source(lambda config, source: digits.collect(), lambda name: False),
    "folder": Source(_folder, folder.wanted),
}


def run(config: DataPrepConfig, *, dataset_dir: Path) -> dict[str, float]:
    """Write the data set that ``config`` names to ``dataset_dir``, whole or not at all.

    The same arguments give the same bytes, whichever place served the files.

    Returns:
        The number of images of each split and of classes.

    Raises:
        OSError: the files are nowhere or cannot be read (the text says how to provide them), or the disk is full.
        ValueError: a file is damaged, or the images do not make a data set; the text gives rule and value.
    """
    dataset = _read(config)
    save_dataset(dataset_dir, dataset)
    return {
        "train_images": float(len(dataset.train)),
        "validation_images": float(len(dataset.validation)),
        "test_images": float(len(dataset.test)),
        "classes": float(len(dataset.classes)),
    }


def _read(config: DataPrepConfig) -> Dataset:
    source = SOURCES[config.dataset_name]
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(opened(config.source, source.wanted)) if config.source else None
        collection = source.collect(config, directory)
        LOG.info(f"data_prep: {config.dataset_name} from {config.source or collection.origin}")
        return prepare(collection, config)


def prepare(collection: Collection, config: DataPrepConfig) -> Dataset:
    """Split a collection, give its images the size and channels asked for, and measure the training images."""
    parts = split(collection, config)
    splits = {name: _finished(arrays, config) for name, arrays in parts.items()}
    mean, std = mean_and_std(splits["train"].images.numpy())
    return Dataset(
        name=config.dataset_name,
        classes=collection.classes,
        mean=mean,
        std=std,
        seed=config.seed,
        # Not the place that served: the same images are the same data set wherever they lay.
        source=config.source or config.dataset_name,
        **splits,
    )


def _finished(arrays: Arrays, config: DataPrepConfig) -> Split:
    images_NCHW, labels_N = arrays
    images_NCHW = with_channels(resized(images_NCHW, config.image_size), config.channels)
    return Split(torch.from_numpy(images_NCHW), torch.from_numpy(labels_N))
