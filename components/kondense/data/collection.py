"""Images and labels of a source, before the split.

Shapes: N images, C channels, H height, W width, M chosen images.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [M, C, H, W], labels [M]


class Images(Protocol):
    """N images: a uint8 array [N, C, H, W], or files that are read when they are taken."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, chosen_M: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the chosen images, uint8 [M, C, H, W]."""


@runtime_checkable
class Files(Images, Protocol):
    """Images in files, of which some may not be readable."""

    paths: Sequence[Path]

    def read(self, chosen_M: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
        """Return the finished images that can be read, which of the chosen they are, and one line for each other."""

    def parts(
        self, chosen_M: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_], Sequence[str]]]:
        """Yield what ``read`` returns, in order and in parts of a bounded size."""

    def bytes_per_image(self) -> int:
        """Return the size of one image in memory."""


@dataclasses.dataclass(frozen=True)
class Labelled:
    """``images`` [N, C, H, W] with ``labels`` int64 [N]."""

    images: Images
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path | None:
        """Return the file of an image; None if it has none."""
        return self.images.paths[index] if isinstance(self.images, Files) else None

    def take(self, chosen_M: NDArray[np.int64]) -> Arrays:
        """Return the chosen images and labels in this order; files are read here."""
        return self.images[chosen_M], self.labels[chosen_M]


@dataclasses.dataclass(frozen=True)
class Collection:
    """The images of a source. Missing splits are None and are later cut from ``train``.

    Attributes:
        classes: names of the classes, by label.
        train: the training images.
        origin: where the files were found, for messages.
        validation: the validation images, or None.
        test: the test images, or None.

    Raises:
        InputError: a label without a class; the text gives the range and the label.
    """

    classes: tuple[str, ...]
    train: Labelled
    origin: str
    validation: Labelled | None = None
    test: Labelled | None = None

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            part: Labelled | None = getattr(self, name)
            if part is not None:
                self._check(name, part)

    def _check(self, name: str, part: Labelled) -> None:
        if len(part.images) != len(part.labels):
            raise InputError(
                f"{name} of {self.origin} must have one label per image,"
                f" but got {len(part.images)} images and {len(part.labels)} labels."
            )
        wrong = part.labels[(part.labels < 0) | (part.labels >= len(self.classes))]
        if len(wrong):
            raise InputError(
                f"{name} labels of {self.origin} must be in [0, {len(self.classes)}), but got {int(wrong[0])}."
            )


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set that data_prep can read.

    Attributes:
        collect: reads it from a directory, or from where it is found if None. Takes the geometry and the maximum number
            of pixels of a picture, which a source of files applies while it decodes them; with ``in_pieces`` also the
            function that makes files complete before they are read (see ``kondense.data.pieces``).
        wanted: tells by its base name whether a file belongs to the data.
        image_size: side in pixels to which its images are resized unless another is asked for; 0 keeps their size.
        in_pieces: whether it reads one file after another, so that a store's need not all be copied first.
    """

    collect: Callable[..., Collection]
    wanted: Callable[[str], bool]
    image_size: int = 0
    in_pieces: bool = False
