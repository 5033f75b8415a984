"""The files of the Dataset artifact: dataset.json and one file of tensors per split.

Shapes: N images, C channels, H height, W width.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from kondense.artifacts.schema import check_fields
from kondense.artifacts.tensors import read_tensors
from kondense.data.shard_index import load_index
from kondense.data.streamed import Images
from kondense.errors import InputError
from kondense.files import ArtifactError, read_json
from kondense.preprocessing import BILINEAR, check_geometry

FORMAT_VERSION, SHARDS_VERSION = FORMATS = (1, 2)  # of images as tensors, of images in shards


class ShardsDescription(TypedDict):
    """Where the shards are and what they are."""

    place: str  # directory or address; empty: the folder shards beside dataset.json
    window_bytes: Annotated[int, "[1, inf)"]
    files: dict[str, list[list[Any]]]  # by split: name, bytes, SHA-256


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
    resize: NotRequired[list[Annotated[int, "[1, inf)"]]]
    interpolation: NotRequired[str]
    skipped: NotRequired[dict[str, Annotated[int, "[1, inf)"]]]
    shards: NotRequired[ShardsDescription]


@dataclasses.dataclass(frozen=True)
class Split:
    """One split: ``images`` uint8 [N, C, H, W], in memory or in shards, and ``labels`` int64 [N]."""

    images: Images
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


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


def read_description(path: Path) -> Description:
    """Read and check dataset.json.

    Raises:
        ArtifactError: it is missing or damaged, or has an unknown format version.
    """
    content = read_json(path, format_version=FORMATS)
    if ("shards" in content) != (content["format_version"] == SHARDS_VERSION):
        raise ArtifactError(f"{path} must name shards if its format_version is {SHARDS_VERSION}, and only then.")
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
    try:
        check_geometry(
            description["shape"][1:], description.get("resize", []), description.get("interpolation", BILINEAR)
        )
    except InputError as error:
        raise ArtifactError(f"{path}: {error}") from error
    return description


def load_split(path: Path, description: Description, place: str) -> Split:
    """Read and check one split; shards, in ``place``, are read when their images are.

    Raises:
        ArtifactError: it is damaged, or differs from the description.
    """
    try:
        if "shards" in description:
            split = Split(*load_index(path, description, place))
        else:
            tensors = read_tensors(path)
            split = Split(images=tensors["images"], labels=tensors["labels"])
        check_split(path.stem, split, len(description["classes"]))
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{path} is not a split of a dataset: {error}") from error
    shape = [description["splits"].get(path.stem), *description["shape"]]
    if list(split.images.shape) != shape:
        raise ArtifactError(f"{path} images must be {shape}, but got {list(split.images.shape)}.")
    return split
