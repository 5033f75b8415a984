"""Make small data sets for tests, in the formats of the real ones."""

import contextlib
import gzip
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run
from kondense.removal import remove_directory
from numpy.typing import NDArray
from PIL import Image

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def make_digits(directory: Path, **options: Any) -> Path:
    """Write the Dataset artifact of scikit-learn's digits: 1,797 images, 8x8 unless ``image_size`` says otherwise."""
    run(DataPrepConfig(dataset_name="digits", **{"image_size": 8, **options}), dataset_dir=directory)
    return directory


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return ``array`` in the idx format."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


def make_fashion_mnist(directory: Path, *, train: int = 60, test: int = 20, compressed: bool = True) -> Path:
    """Write the four idx files with random images of 28x28 and labels 0 to 9 in turn."""
    rng = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx_bytes(array)
            name = f"{part}-{kind}-ubyte" + ".gz" * compressed
            (directory / name).write_bytes(gzip.compress(content) if compressed else content)
    return directory


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Write what Python 2 and its NumPy wrote: texts are byte strings, and NumPy's modules have their old names."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, text: str | bytes) -> None:
        content = text.encode("latin1") if isinstance(text, str) else text
        if len(content) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(content)]) + content)
        else:
            self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        self.memoize(content)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch[str] = save_text
    dispatch[bytes] = save_text
    dispatch[type] = save_global
    dispatch[type(np.ndarray.tobytes)] = save_global
    dispatch[type(len)] = save_global


def write_python2_pickle(path: Path, content: Mapping[str, Any], *, protocol: int = 2) -> None:
    """Write ``content`` as Python 2 would have."""
    with path.open("wb") as file:
        Python2Pickler(file, protocol).dump(dict(content))


def cifar_batch(count: int, *, label_key: str, classes: int, seed: int) -> dict[str, Any]:
    """Return one batch of CIFAR: random images [count, 3072], labels 0 to ``classes`` - 1 in turn."""
    rng = np.random.default_rng(seed)
    batch: dict[str, Any] = {
        "batch_label": f"training batch {seed} of 5",
        label_key: [(seed + index) % classes for index in range(count)],
        "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        "filenames": [f"image_s_{seed:06}_{index}.png" for index in range(count)],
    }
    if label_key == "fine_labels":
        batch["coarse_labels"] = [label // 5 for label in batch[label_key]]
    return batch


def make_cifar10(directory: Path, *, per_batch: int = 20) -> Path:
    """Write CIFAR-10's files with ``per_batch`` images each: five training batches, one test batch, the names."""
    folder = directory / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number in range(1, 6):
        batch = cifar_batch(per_batch, label_key="labels", classes=10, seed=number)
        write_python2_pickle(folder / f"data_batch_{number}", batch)
    write_python2_pickle(folder / "test_batch", cifar_batch(per_batch, label_key="labels", classes=10, seed=9))
    meta = {"num_cases_per_batch": per_batch, "label_names": list(CIFAR10_NAMES), "num_vis": 3072}
    write_python2_pickle(folder / "batches.meta", meta, protocol=2)
    return folder


def make_cifar100(directory: Path, *, train: int = 200, test: int = 100) -> Path:
    """Write CIFAR-100's files: images with fine and coarse labels, the names."""
    folder = directory / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, count, seed in (("train", train, 1), ("test", test, 2)):
        batch = cifar_batch(count, label_key="fine_labels", classes=100, seed=seed)
        write_python2_pickle(folder / name, batch)
    names = {
        "fine_label_names": [f"fine_{index}" for index in range(100)],
        "coarse_label_names": [f"coarse_{index}" for index in range(20)],
    }
    write_python2_pickle(folder / "meta", names)
    return folder


def make_image_folder(
    directory: Path,
    *,
    classes: Sequence[str] = ("cat", "dog"),
    per_class: int = 12,
    size: tuple[int, int] = (10, 10),
    mode: str = "RGB",
    suffix: str = ".png",
) -> Path:
    """Write a folder of random images (width, height) per class."""
    rng = np.random.default_rng(0)
    for name in classes:
        (directory / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(directory / name / f"{index:03}{suffix}")
    return directory


@contextlib.contextmanager
def deep_place() -> Iterator[Path]:
    """Yield a directory for folders in each other that pytest, which uses shutil's rmtree, could not remove."""
    path = Path(tempfile.mkdtemp(prefix="kondense-test-"))
    try:
        yield path
    finally:
        remove_directory(path)


def nested(directory: Path, levels: int) -> None:
    """Make folders in each other: directory/d/d/..., more than Python's own functions can make."""
    directory.mkdir(parents=True, exist_ok=True)
    path = str(directory)
    for _ in range(levels):
        path += "/d"
        os.mkdir(path)
