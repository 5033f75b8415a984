"""Cut a collection into training, validation and test images.

Shapes: N images of a part, M chosen ones, C channels, H height, W width.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kondense.data.collection import Collection, Files, Labelled
from kondense.data.picture import Geometry
from kondense.data.pixels import finished
from kondense.data.stratified import cut
from kondense.errors import InputError
from kondense.logging import LOG

SPLITS = ("train", "validation", "test")
VALIDATION_SHARE = 12  # one image in this many, if validation_size is 0
MOST_SHARE = 4  # or one image of every class, if that is no more than one in this many


@dataclasses.dataclass(frozen=True)
class Choice:
    """The images of one split: those of ``part`` at ``indices``, in this order."""

    part: Labelled
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)


@dataclasses.dataclass(frozen=True)
class Taken:
    """One split in memory.

    Attributes:
        images: uint8 [M, C, H, W].
        labels: int64 [M].
        part: where the images come from.
        indices: which images of the part they are, int64 [M].
        problems: one line for each image that could not be read.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    part: Labelled
    indices: NDArray[np.int64]
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, kept_M: NDArray[np.bool_]) -> "Taken":
        """Return the images that ``kept_M`` marks."""
        return dataclasses.replace(
            self, images=self.images[kept_M], labels=self.labels[kept_M], indices=self.indices[kept_M]
        )


def take(choice: Choice, geometry: Geometry) -> Taken:
    """Return the images of ``choice`` that can be read, brought to ``geometry``."""
    part, indices = choice.part, choice.indices
    if isinstance(part.images, Files):
        images_KCHW, readable_M, problems = part.images.read(indices)
        kept = indices[readable_M]
        return Taken(images_KCHW, part.labels[kept], part, kept, tuple(problems))
    return Taken(finished(part.images[indices], geometry), part.labels[indices], part, indices)


def taken_in_parts(choice: Choice, geometry: Geometry, part_bytes: int) -> Iterator[Taken]:
    """Yield what ``take`` returns, in order and in parts of about ``part_bytes`` at most."""
    part, indices = choice.part, choice.indices
    start, size = 0, 1
    if isinstance(part.images, Files):
        for images_KCHW, readable_P, problems in part.images.parts(indices):
            kept = indices[start : start + len(readable_P)][readable_P]
            start += len(readable_P)
            yield Taken(images_KCHW, part.labels[kept], part, kept, tuple(problems))
        return
    while start < len(indices):
        taken = take(Choice(part, indices[start : start + size]), geometry)
        start += size
        size = max(1, part_bytes // (taken.images.nbytes // len(taken)))
        yield taken


def split_collection(
    collection: Collection, *, seed: int = 0, validation_size: int = 0, test_fraction: float = 0.2, limit: int = 0
) -> dict[str, Choice]:
    """Choose the images of train, validation and test.

    The order of every split that is cut is that of ``numpy.random.default_rng(seed).permutation``: first the
    test images are cut if the source has none, then ``limit`` applies, then the validation images are cut. Where the
    cut has few images of a class, every class gives its share (see ``kondense.data.stratified``).
    A test or validation split of the source keeps its order, unless ``limit`` draws from it. A class that would have no
    training image gets one back, unless ``limit`` applies.

    Args:
        collection: the images.
        seed: of the permutations.
        validation_size: training images kept for validation; 0 takes one in twelve, and one of every class at least
            if that is no more than one in four.
        test_fraction: fraction of the images kept for the test if the source has no test images, (0, 1).
        limit: maximum number of training images and of test images; 0 takes all.

    Raises:
        InputError: ``test_fraction`` is out of its range, or there are too few images for three splits, or for one
            training image of every class.
    """
    if not 0 < test_fraction < 1:
        raise InputError(f"test_fraction must be in (0, 1), but got {test_fraction}.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(collection.train))
    if collection.test is None:
        count = max(1, round(len(order) * test_fraction))
        cut_off, order = cut(order, collection.train.labels[order], count, left=2)  # for train and validation
        test = Choice(collection.train, _limited(cut_off, limit))
    else:
        test = _drawn(collection.test, limit, rng)
    order = _limited(order, limit)
    if collection.validation is None:
        labels = collection.train.labels[order]
        count = _validation_size(labels, validation_size)
        cut_off, order = cut(order, labels, count, left=1)
        validation = Choice(collection.train, cut_off)
    else:
        validation = _drawn(collection.validation, limit, rng)
    choices = {"train": Choice(collection.train, order), "validation": validation, "test": test}
    return choices if limit else _with_every_class(choices)


def _with_every_class(choices: dict[str, Choice]) -> dict[str, Choice]:
    """Move to train the first image of each class that was cut from it completely, from validation before test."""
    train = choices["train"].part
    present = np.zeros(1 + int(train.labels.max(initial=0)), np.bool_)
    present[train.labels[choices["train"].indices]] = True
    for name in SPLITS[1:]:
        part, indices = choices[name].part, choices[name].indices
        if part is not train:
            continue
        moved = np.array([row for row, label in enumerate(part.labels[indices]) if _first(present, label)], np.int64)
        if not len(moved):
            continue
        if len(moved) == len(indices):
            raise InputError(
                f"there must be images for {name} beside one of every class for train, but of the classes of all"
                f" {len(moved)} that could go there is no other: bring more images per class, or a folder {name}."
            )
        LOG.warning(f"{len(moved)} images of rare classes moved from {name} to train, which had none of these classes")
        order = np.concatenate([choices["train"].indices, indices[moved]])
        choices |= {"train": Choice(train, order), name: Choice(part, np.delete(indices, moved))}
    return choices


def _first(present: NDArray[np.bool_], label: int) -> bool:
    """Return whether ``label`` is not present yet, and note that it is."""
    first = not present[label]
    present[label] = True
    return first


def _drawn(part: Labelled, limit: int, rng: np.random.Generator) -> Choice:
    order = rng.permutation(len(part))
    return Choice(part, order[:limit] if 0 < limit < len(part) else np.arange(len(part)))


def _limited(order_N: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    return order_N[:limit] if limit else order_N


def _validation_size(labels_N: NDArray[np.int64], validation_size: int) -> int:
    """Return how many of the training images are kept for validation: by default one of every class at least."""
    available = len(labels_N)
    if available < 2:
        raise InputError(
            f"train and validation must have at least 2 images together, but {available} is left; bring more images."
        )
    several = int((np.bincount(labels_N) > 1).sum())
    least = several if several <= available // MOST_SHARE else 1
    size = validation_size or max(1, least, round(available / VALIDATION_SHARE))
    if size >= available:
        raise InputError(f"validation_size must be below the number of training images ({available}), but got {size}.")
    return size
