"""The Dataset artifact: images and labels of three splits, with what is needed to normalise them.

Shapes: N images, C channels, H height, W width.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, TypedDict, cast

import torch
from torch import Tensor

from kondense.artifacts.schema import check_fields
from kondense.artifacts.tensors import read_tensors, write_tensors
from kondense.errors import InputError
from kondense.files import ArtifactError, json_bytes, new_directory, read_json, sha256, verify_files

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")


class Description(TypedDict):
    """What dataset.json says, beside its format version."""

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


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled image data set.

    ``mean`` and ``std`` are per channel, of the training split, for pixel values scaled to [0, 1].
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
    """Raise ValueError unless images and labels fit each other and every label names a class."""
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
        ValueError: images or labels break a rule of the format.
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
    """Return the digest that names this dataset: that of dataset.json, which holds all the others."""
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
