"""The Dataset artifact: images and labels of three splits, with the mean and deviation that normalise them.

Shapes: N images, C channels, H height, W width.
"""

import dataclasses
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from kondense.artifacts.schema import check_fields
from kondense.artifacts.tensors import read_tensors, write_tensors
from kondense.data import folder, memory
from kondense.data.collection import Collection
from kondense.data.locate import opened
from kondense.data.pixels import mean_and_std, resized, with_channels
from kondense.data.split import split_collection
from kondense.errors import InputError
from kondense.files import ArtifactError, json_bytes, new_directory, read_json, sha256, verify_files

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")


class Description(TypedDict):
    """The content of dataset.json without its format version."""

    name: str
    classes: list[str]
    shape: list[Annotated[int, "[1, inf)"]]
    mean: list[float]
    std: list[Annotated[float, "(0, inf)"]]
    splits: dict[str, Annotated[int, "[1, inf)"]]
    seed: int
    source: str
    files: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Split:
    """One split: ``images`` uint8 [N, C, H, W] and ``labels`` int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


Pair = tuple[ArrayLike | Tensor, ArrayLike | Tensor]  # images, labels


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset:
    """Labelled images in three splits: train, validation and test.

    Make one with ``from_arrays``, ``from_loader``, ``from_folder`` or ``from_store``. These take images as uint8, or
    as float in [0, 1] without normalisation, and cut missing splits from the training images with ``seed``:
    ``test_fraction`` of them for the test, then ``validation_size`` images (0: one in twelve) for the validation.

    Attributes:
        name: names the data set in reports and published models.
        classes: names of the classes, by label.
        mean: mean per channel of the training images, for pixel values in [0, 1].
        std: standard deviation per channel, likewise.
        seed: seed of the split.
        source: where the images come from.
        train: training images and labels.
        validation: validation images and labels; all choices are made on them.
        test: test images and labels, for the final measurements.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int
    source: str
    train: Split
    validation: Split
    test: Split

    @classmethod
    def from_arrays(
        cls,
        train: Pair,
        validation: Pair | None = None,
        test: Pair | None = None,
        *,
        classes: Sequence[str] | None = None,
        name: str = "data",
        seed: int = 0,
        validation_size: int = 0,
        test_fraction: float = 0.2,
    ) -> "Dataset":
        """Return the data set of NumPy arrays or tensors.

        Args:
            train: images [N, C, H, W], [N, H, W, C] or [N, H, W], uint8 or float in [0, 1], and integer labels [N].
            validation: likewise; cut from ``train`` if missing.
            test: likewise.
            classes: names of the classes, by label; by default the numbers up to the largest label.
            name: names the data set in reports and published models.
            seed: seed of the split.
            validation_size: training images kept for validation; 0 takes one in twelve.
            test_fraction: fraction of ``train`` kept for the test if ``test`` is missing, (0, 1).

        Raises:
            InputError: the arrays break one of these rules; the text gives the split, the rule and the value.

        >>> import numpy as np
        >>> images, labels = np.zeros((120, 28, 28), np.uint8), np.arange(120) % 3
        >>> Dataset.from_arrays(train=(images, labels), classes=["cat", "dog", "owl"], name="pets")
        Dataset(pets: 3 classes, images [1, 28, 28], 88 train, 8 validation, 24 test)
        """
        pairs = {"train": train, "validation": validation, "test": test}
        parts = {split: memory.from_pair(split, pair) for split, pair in pairs.items()}
        collection = memory.collection_of(parts, classes, name)
        return cls.from_collection(
            collection, name=name, seed=seed, validation_size=validation_size, test_fraction=test_fraction
        )

    @classmethod
    def from_loader(
        cls,
        train: Iterable[Any],
        validation: Iterable[Any] | None = None,
        test: Iterable[Any] | None = None,
        **options: Any,
    ) -> "Dataset":
        """Return the data set of DataLoaders, each read once: use loaders without augmentation and normalisation.

        Args:
            train: yields batches (images, labels) as ``from_arrays`` takes them, all of one image shape.
            validation: likewise; cut from ``train`` if missing.
            test: likewise.
            options: the keyword arguments of ``from_arrays``.

        Raises:
            InputError: batches without labels or of unlike shapes, or values that ``from_arrays`` rejects.
        """
        loaders = {"train": train, "validation": validation, "test": test}
        pairs: dict[str, Any] = {split: memory.from_batches(split, loader) for split, loader in loaders.items()}
        return cls.from_arrays(**pairs, **options)

    @classmethod
    def from_folder(
        cls, path: str | Path, *, image_size: int = 0, channels: int = 0, name: str = "folder", **cut: Any
    ) -> "Dataset":
        """Return the data set of a folder of images per class, as ``kondense run --dataset folder`` reads it.

        Args:
            path: a directory, or its address in a store (``s3://bucket/prefix``): ``cat/1.png``, or
                ``train/cat/1.png`` with ``test/cat/2.png`` and ``validation/...``.
            image_size: side in pixels that images are cropped and resized to; 0: all are squares of one size.
            channels: 1 for grey, 3 for colour; 0 is 1 if all images are grey.
            name: names the data set in reports and published models.
            cut: ``seed``, ``validation_size``, ``test_fraction`` and ``limit``, see ``kondense.data.split``.

        Raises:
            InputError: no images, fewer than two classes, or a file that is no image; the text names it.
        """
        with opened(str(path), folder.wanted) as directory:
            collection = folder.collect(directory, image_size=image_size, channels=channels)
            return cls.from_collection(collection, name=name, source=str(path), **cut)

    @classmethod
    def from_store(cls, address: str | Path) -> "Dataset":
        """Return the data set that ``save`` or the data_prep stage wrote to a directory or a store.

        Args:
            address: a directory, ``minio://bucket/prefix`` or ``s3://bucket/prefix``.

        Raises:
            ArtifactError: a missing or damaged file, or an unknown format version.
            StoreError: the store cannot be reached.
        """
        from kondense.store.open import open_store

        if "://" not in str(address):
            return load_dataset(Path(address))
        with tempfile.TemporaryDirectory(prefix="kondense-dataset-") as scratch:
            open_store(str(address)).download_artifact(Path(scratch))
            return load_dataset(Path(scratch))

    @classmethod
    def from_collection(
        cls,
        collection: Collection,
        *,
        name: str,
        source: str = "memory",
        seed: int = 0,
        image_size: int = 0,
        channels: int = 0,
        **cut: Any,
    ) -> "Dataset":
        """Split a collection, resize its images and measure the training images; see ``kondense.data.split``."""
        splits = {}
        for part, (images_NCHW, labels_N) in split_collection(collection, seed=seed, **cut).items():
            finished_NCHW = with_channels(resized(images_NCHW, image_size), channels)
            splits[part] = Split(torch.from_numpy(finished_NCHW), torch.from_numpy(labels_N))
        mean, std = mean_and_std(splits["train"].images.numpy())
        return cls(name=name, classes=collection.classes, mean=mean, std=std, seed=seed, source=source, **splits)

    def save(self, directory: str | Path) -> None:
        """Write the Dataset artifact to ``directory``, whole or not at all."""
        save_dataset(Path(directory), self)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(self.split(name))} {name}" for name in SPLITS)
        return f"Dataset({self.name}: {len(self.classes)} classes, images {list(self.shape)}, {sizes})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image, (C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def normalise(self, images: Tensor) -> Tensor:
        """Return uint8 images [N, C, H, W] as float32 of zero mean and unit variance per channel, on their device."""
        scale = torch.tensor([1.0 / (255.0 * std) for std in self.std]).to(images.device)
        shift = torch.tensor([-mean / std for mean, std in zip(self.mean, self.std, strict=True)]).to(images.device)
        # One pass over the batch: a fused multiply-add instead of scaling, subtracting and dividing.
        return torch.addcmul(shift.view(1, -1, 1, 1), images.float(), scale.view(1, -1, 1, 1))

    def split(self, name: str) -> Split:
        """Return the split called ``name``: train, validation or test."""
        split: Split = getattr(self, name)
        return split


def check_split(name: str, split: Split, classes: int) -> None:
    """Raise InputError unless images and labels fit each other and every label has a class."""
    images, labels = split.images, split.labels
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise InputError(f"{name} images must be uint8 [N, C, H, W], but got {images.dtype} {list(images.shape)}.")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise InputError(f"{name} labels must be int64 [{len(images)}], but got {labels.dtype} {list(labels.shape)}.")
    if not len(labels):
        raise InputError(f"{name} must hold at least one image, but got 0.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(f"{name} labels must be in [0, {classes}), but got {low if low < 0 else high}.")


def save_dataset(directory: Path, dataset: Dataset) -> None:
    """Write ``dataset`` to ``directory``, whole or not at all.

    Raises:
        InputError: images or labels break a rule of the format.
        OSError: the disk is full or not writable.
    """
    for name in SPLITS:
        check_split(name, dataset.split(name), len(dataset.classes))
    with new_directory(directory) as scratch:
        files = {}
        for name in SPLITS:
            split = dataset.split(name)
            path = scratch / f"{name}.safetensors"
            write_tensors(path, {"images": split.images.contiguous(), "labels": split.labels.contiguous()})
            files[path.name] = sha256(path)
        description = {
            "format_version": FORMAT_VERSION,
            "name": dataset.name,
            "classes": list(dataset.classes),
            "shape": list(dataset.shape),
            "mean": list(dataset.mean),
            "std": list(dataset.std),
            "splits": {name: len(dataset.split(name)) for name in SPLITS},
            "seed": dataset.seed,
            "source": dataset.source,
            "files": files,
        }
        (scratch / "dataset.json").write_bytes(json_bytes(description))


def load_dataset(directory: Path) -> Dataset:
    """Read and verify the dataset in ``directory``.

    Raises:
        ArtifactError: a missing or damaged file, an unknown format version, labels out of range.
    """
    description = _read_description(directory / "dataset.json")
    verify_files(directory, description["files"], required=[f"{name}.safetensors" for name in SPLITS])
    splits = {name: _load_split(directory / f"{name}.safetensors", description) for name in SPLITS}
    return Dataset(
        name=description["name"],
        classes=tuple(description["classes"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
        seed=description["seed"],
        source=description["source"],
        **splits,
    )


def dataset_digest(directory: Path) -> str:
    """Return the digest that identifies this data set: that of dataset.json, which contains all others."""
    return sha256(directory / "dataset.json")


def _read_description(path: Path) -> Description:
    content = read_json(path, format_version=FORMAT_VERSION)
    check_fields(str(path), content, Description)
    description = cast(Description, content)
    channels = description["shape"][:1]
    if (
        len(description["shape"]) != 3
        or [len(description["mean"])] != channels
        or [len(description["std"])] != channels
    ):
        raise ArtifactError(
            f"{path} must have a shape [C, H, W] with mean and std [C], but got {description['shape']},"
            f" {description['mean']} and {description['std']}."
        )
    return description


def _load_split(path: Path, description: Description) -> Split:
    tensors = read_tensors(path)
    try:
        split = Split(images=tensors["images"], labels=tensors["labels"])
        check_split(path.stem, split, len(description["classes"]))
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{path} is not a split of a dataset: {error}") from error
    shape = [description["splits"].get(path.stem), *description["shape"]]
    if list(split.images.shape) != shape:
        raise ArtifactError(f"{path} images must be {shape}, but got {list(split.images.shape)}.")
    return split
