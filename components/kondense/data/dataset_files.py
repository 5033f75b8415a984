"""The splits of the Dataset artifact: a file of tensors each.

Shapes: N images, C channels, H height, W width.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from kondense.artifacts.tensors import read_tensors
from kondense.data.description import Description
from kondense.data.shard_index import load_index
from kondense.data.streamed import Images
from kondense.errors import InputError
from kondense.files import ArtifactError


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
