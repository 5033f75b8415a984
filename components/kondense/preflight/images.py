"""The shape and the classes of a run's images, known before they are read."""

import dataclasses
import pkgutil
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from kondense.data.collection import Collection, Labelled, Source
from kondense.data.dataset import Dataset
from kondense.data.entries import is_data
from kondense.data.examination import too_many
from kondense.data.image_files import ImageFiles, in_one_line
from kondense.data.picture import Geometry
from kondense.data.split import Choice, split_collection
from kondense.data_prep.config import SOURCES, DataPrepConfig
from kondense.errors import InputError
from kondense.preflight.costs import Sizes
from kondense.scratch import scratch_directory
from kondense.store.open import open_store
from kondense.store.store import Store, check_key

Shape = tuple[int, int, int]
# Of the files: shape of one image, [C, H, W], number of classes, training images, test images (0: cut from the others).
KNOWN: dict[str, tuple[Shape, int, int, int]] = {
    "fashion_mnist": ((1, 28, 28), 10, 60_000, 10_000),
    "cifar10": ((3, 32, 32), 10, 50_000, 10_000),
    "cifar100": ((3, 32, 32), 100, 50_000, 10_000),
    "digits": ((1, 16, 16), 10, 1_797, 0),
}
MOST, LEAST = 16, 4  # training images of the random data set
PIXELS = 2**16  # of all of them together, where that leaves the least number
FETCHED = 16  # pictures of a store
DECODED_S = 2.0  # seconds for which pictures are decoded to find those that cannot be read


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of a data set before its images are read.

    Attributes:
        shape: of one image, [C, H, W].
        classes: number of classes.
        sizes: of the splits; None if they are not known.
    """

    shape: Shape
    classes: int
    sizes: Sizes | None = None


def known_images(config: DataPrepConfig) -> Known | None:
    """Return what is known of a data set; None if only its files tell.

    A folder on this machine is listed, the headers of its pictures are read, and as many are decoded as two seconds
    allow; a store is listed, and a few of its pictures are fetched, so that unreadable ones count there.

    Raises:
        InputError: the folder makes no data set, or has more unreadable pictures than may be left out.
    """
    if config.dataset_name == "folder":
        return _of_folder(config)
    if config.dataset_name not in KNOWN:
        return None
    (channels, height, width), classes, train, test = KNOWN[config.dataset_name]
    height, width = config.size or (height, width)
    parts = [Labelled(np.empty((count, 0)), np.zeros(count, np.int64)) for count in (train, test)]
    collection = Collection(("any",), parts[0], config.dataset_name, test=parts[1] if test else None)
    return Known((config.channels or channels, height, width), classes, _sizes(_splits(collection, config)))


def _splits(collection: Collection, config: DataPrepConfig) -> dict[str, Choice]:
    """Return the splits that data_prep will cut.

    Raises:
        InputError: they have too few images.
    """
    return split_collection(
        collection,
        seed=config.seed,
        validation_size=config.validation_size,
        test_fraction=config.test_fraction,
        limit=config.limit,
    )


def _sizes(splits: Mapping[str, Choice]) -> Sizes:
    return Sizes(**{name: len(choice) for name, choice in splits.items()})


def _of_folder(config: DataPrepConfig) -> Known | None:
    source: Source = pkgutil.resolve_name(SOURCES[config.dataset_name])
    if "://" in config.source:
        with scratch_directory("preflight") as scratch:
            few, names = scratch / "few", scratch / "names"
            sampled(open_store(config.source), config.source, source.wanted, few, names)
            known = _collected(source, config, few, whole=False)
            channels, *size = known.shape  # with these given, no picture is read
            collection = source.collect(names, Geometry(tuple(size), channels), config.max_pixels)
            return dataclasses.replace(known, sizes=_sizes(_splits(collection, config)))
    directory = Path(config.source).expanduser()
    return _collected(source, config, directory, whole=True) if directory.is_dir() else None


def _collected(source: Source, config: DataPrepConfig, directory: Path, *, whole: bool) -> Known:
    """Return what the pictures in ``directory`` tell; ``whole``: they are all of the data set's."""
    geometry = Geometry(config.size, config.channels, config.steps, config.interpolation)
    collection = source.collect(directory, geometry, config.max_pixels)
    images = collection.train.images
    assert isinstance(images, ImageFiles)
    height, width = images.geometry.size
    splits = _splits(collection, config) if whole else {}
    check_decoded(splits.values(), config.max_bad)
    sizes = _sizes(splits) if whole else None
    return Known((images.geometry.channels, height, width), len(collection.classes), sizes)


def check_decoded(choices: Iterable[Choice], max_bad: int, *, seconds: float = DECODED_S) -> None:
    """Decode pictures in random order while time is left.

    Args:
        choices: pictures of all splits.
        max_bad: number of unreadable pictures that are left out.
        seconds: after which no further picture is decoded.

    Raises:
        InputError: more of them cannot be read; the text is that of data_prep if all were tried.
    """
    pictures = [(choice.part.images, index) for choice in choices for index in choice.indices]
    problems: list[str] = []
    began, tried = time.monotonic(), 0
    for number in np.random.default_rng(0).permutation(len(pictures)):
        if time.monotonic() - began > seconds:
            break
        images, index = pictures[number]
        assert isinstance(images, ImageFiles)
        problems += images.read(np.array([index]))[2]
        tried += 1
    if len(problems) > max_bad:
        problems.sort()
        if tried == len(pictures):
            raise too_many(problems)
        raise InputError(f"{in_one_line(problems)} {tried:,} of {len(pictures):,} were tried (data_prep.max_bad).")


def sampled(store: Store, uri: str, wanted: Callable[[str], bool], directory: Path, names: Path) -> None:
    """Make the folder of a store in ``directory``: all of its folders, but ``FETCHED`` of its pictures at most.

    The pictures are drawn from the list. A folder without one of them gets a copy, so that its class counts.

    Args:
        store: of the pictures.
        uri: its address, for the message.
        wanted: tells by its base name whether a file is a picture.
        directory: new.
        names: new; gets an empty file for each picture.

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
        for root in (directory, names):
            Path(root, key).parent.mkdir(parents=True, exist_ok=True)
    for key in pictures:
        Path(names, key).touch()
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
    train = max(LEAST, min(MOST, PIXELS // (shape[1] * shape[2])))
    others = train // 2

    def pair(images: int) -> tuple[np.ndarray, np.ndarray]:  # every split has the same classes
        labels = np.arange(images, dtype=np.int64) % min(classes, others)
        return rng.integers(0, 256, (images, *shape), np.uint8), labels

    names = [str(number) for number in range(classes)]
    return Dataset.from_arrays(pair(train), pair(others), pair(others), classes=names, name="random")
