"""The images of DataLoaders, read once: in memory, or in files from a number of bytes on.

Shapes: N images, B of a batch, C channels, H height, W width.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kondense.data.collection import Labelled
from kondense.data.memory import batches_of
from kondense.errors import InputError
from kondense.scratch import scratch_directory


@contextlib.contextmanager
def spooled(
    loaders: Mapping[str, Iterable[Any] | None], limit_bytes: int
) -> Iterator[tuple[dict[str, Labelled | None], int]]:
    """Yield the images and labels of each loader, and the number of bytes of all images.

    Images beyond ``limit_bytes`` are in files, which are mapped into memory and gone after the block.

    Args:
        loaders: by split; None for a split without one.
        limit_bytes: of decoded images that are kept in memory.

    Raises:
        InputError: batches that are not (images, labels) or have unlike shapes, or no batch.
        OSError: the disk is full.
    """
    parts: dict[str, Labelled | None] = {}
    needed = 0
    with scratch_directory("loader") as directory:
        for split, loader in loaders.items():
            parts[split] = None
            if loader is not None:
                parts[split] = part = _read(split, loader, Path(directory, f"{split}.raw"), limit_bytes - needed)
                channels, height, width = part.images[np.arange(1)].shape[1:]
                needed += len(part) * channels * height * width
        yield parts, needed


def _read(split: str, loader: Iterable[Any], path: Path, limit_bytes: int) -> Labelled:
    """Return the images and labels of a loader; the images are in the file ``path`` if they exceed ``limit_bytes``."""
    images: list[NDArray[np.uint8]] = []  # that are not in the file
    labels: list[NDArray[np.int64]] = []
    shape: tuple[int, ...] = ()
    held = 0
    with path.open("wb") as file:
        for part in batches_of(split, loader):
            batch = part.images[np.arange(len(part))]
            shape = batch.shape[1:]
            images.append(batch)
            labels.append(part.labels)
            held += batch.nbytes
            if held > limit_bytes:
                for each in images:
                    file.write(each.data)
                images.clear()
    if not labels:
        raise InputError(f"{split} must yield at least one batch, but yields none.")
    labels_N = np.concatenate(labels)
    if images:
        return Labelled(np.concatenate(images), labels_N)
    return Labelled(np.memmap(path, np.uint8, "r", shape=(len(labels_N), *shape)), labels_N)
