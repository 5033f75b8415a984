"""Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 pixels, in the idx files that torchvision reads too.

Source: Xiao et al. 2017, table 1 (class names).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from kondense.data import download
from kondense.data.collection import Collection, Labelled, Source
from kondense.data.idx import read_idx
from kondense.data.locate import Route, existing, locate, obtain

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
LAYOUTS = (".", "FashionMNIST/raw", "fashion-mnist")
ROUTES = {
    "torchvision's download": partial(download.from_torchvision, "FashionMNIST", "FashionMNIST/raw"),
    "the Debian package dataset-fashion-mnist": partial(
        download.from_debian, "dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"
    ),
}


def collect(source: Path | None, *, routes: Mapping[str, Route] = ROUTES) -> Collection:
    """Read Fashion-MNIST, [N, 1, 28, 28].

    Args:
        source: a directory with the files; None searches the usual directories, then downloads.
        routes: ways to download them, by name.

    Raises:
        SourceError: the files were not found; the text names the ways to provide them.
        InputError: a file is damaged, or a label has no class.
    """
    if source is None:
        directory, origin = obtain(LAYOUTS, FILES, routes)
    else:
        directory, origin = locate(source, LAYOUTS, FILES), str(source)
    return Collection(
        classes=CLASSES, train=_labelled(directory, "train"), test=_labelled(directory, "t10k"), origin=origin
    )


def _labelled(directory: Path, part: str) -> Labelled:
    images, labels = (existing(directory, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    assert images and labels
    return Labelled(read_idx(images, 3)[:, None], read_idx(labels, 1).astype(np.int64))


SOURCE = Source(lambda directory, *_: collect(directory), lambda name: name.removesuffix(".gz") in FILES)
