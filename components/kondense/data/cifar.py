"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32x32 pixels, in the batch files that torchvision reads too.

Source: Krizhevsky 2009; the file format is described at the data set's home page. CIFAR-100 has its fine labels.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kondense.data import download
from kondense.data.batch_pickle import read_batch
from kondense.data.collection import Collection, Labelled, Source
from kondense.data.locate import locate, obtain
from kondense.errors import InputError

SHAPE = (3, 32, 32)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The files and keys of one of the two data sets."""

    torchvision: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files."""
        return (*self.train, self.test, self.meta)


CIFAR10_LAYOUT = Layout(
    torchvision="CIFAR10",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels="labels",
    names="label_names",
)
CIFAR100_LAYOUT = Layout(
    torchvision="CIFAR100",
    folder="cifar-100-python",
    train=("train",),
    test="test",
    meta="meta",
    labels="fine_labels",
    names="fine_label_names",
)


def collect(layout: Layout, source: Path | None) -> Collection:
    """Read CIFAR-10 or CIFAR-100, [N, 3, 32, 32].

    Args:
        layout: which of the two.
        source: a directory with the files; None searches the usual directories, then downloads.

    Raises:
        SourceError: the files were not found; the text names the ways to provide them.
        InputError: a file is damaged or would run code, or a label has no class.
    """
    layouts = (".", layout.folder)
    if source is None:
        fetch = partial(download.from_torchvision, layout.torchvision, layout.folder)
        directory, origin = obtain(layouts, layout.files, {"torchvision's download": fetch})
    else:
        directory, origin = locate(source, layouts, layout.files), str(source)
    return Collection(
        classes=_classes(directory / layout.meta, layout.names),
        train=_labelled([directory / name for name in layout.train], layout.labels),
        test=_labelled([directory / layout.test], layout.labels),
        origin=origin,
    )


def _classes(path: Path, key: str) -> tuple[str, ...]:
    names = _entry(path, read_batch(path), key, list)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} must name every class as text.")
    return tuple(names)


def _labelled(paths: list[Path], key: str) -> Labelled:
    batches = [_batch(path, key) for path in paths]
    images_NCHW = np.concatenate([images for images, _ in batches])
    return Labelled(images_NCHW, np.concatenate([labels for _, labels in batches]))


def _batch(path: Path, key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = read_batch(path)
    rows: NDArray[np.uint8] = _entry(path, batch, "data", np.ndarray)
    labels = _entry(path, batch, key, list)
    width = int(np.prod(SHAPE))
    if rows.ndim != 2 or rows.shape[1] != width:
        raise InputError(f"{path} must hold images of {width} bytes, but holds {list(rows.shape)}.")
    if len(rows) != len(labels) or not all(type(label) is int for label in labels):
        raise InputError(
            f"{path} must hold one whole number per image as {key}, but has {len(labels)} for {len(rows)}."
        )
    return rows.reshape(-1, *SHAPE), np.array(labels, np.int64)


def _entry(path: Path, batch: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(batch.get(key), kind):
        raise InputError(f"{path} must hold {key!r} ({kind.__name__}), but holds {ascii(sorted(batch))[1:-1][:200]}.")
    return batch[key]


def _source(layout: Layout) -> Source:
    return Source(lambda directory, *_: collect(layout, directory), lambda name: name in layout.files)


CIFAR10, CIFAR100 = map(_source, (CIFAR10_LAYOUT, CIFAR100_LAYOUT))
