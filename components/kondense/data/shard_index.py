"""The index of a data set in shards: dataset.json names the shards, one file per split says where each image is.

Shapes: N images, C channels, H height, W width.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kondense.artifacts.tensors import read_tensors
from kondense.data.description import Description, ShardsDescription
from kondense.data.picture import shown
from kondense.data.shard_cache import place_at
from kondense.data.shards import ShardFile, Shards, missing
from kondense.data.streamed import DIGEST, Images, ShardedImages
from kondense.errors import InputError
from kondense.files import ArtifactError

FOLDER = "shards"  # of the artifact, unless the shards are elsewhere
NAME = re.compile(r"(train|validation|test)-[0-9]{6}-[0-9a-f]{16}\.tar")
SHA256 = re.compile(r"[0-9a-f]{64}")


def index_of(images: ShardedImages, labels: Tensor) -> dict[str, Tensor]:
    """Return the tensors of a split's file."""
    return {"labels": labels.contiguous(), "place": images.place_N3.contiguous(), "digests": images.digests}


def load_index(path: Path, description: Description, place: str) -> tuple[ShardedImages, Tensor]:
    """Return images and labels of the split whose file is ``path``; no shard is read.

    Args:
        path: of the split's file.
        description: the content of dataset.json.
        place: directory or address of the shards.

    Raises:
        ArtifactError: the file is damaged, or names no place in the shards.
    """
    listed, tensors = description["shards"]["files"].get(path.stem, []), read_tensors(path)
    files = [_shard_file(path, entry) for entry in listed]
    try:
        labels, place_N3, digests = tensors["labels"], tensors["place"], tensors["digests"]
    except KeyError as error:
        raise ArtifactError(f"{path} must have a tensor {error}, but has none.") from None
    count = len(labels)
    if place_N3.dtype != torch.int64 or place_N3.shape != (count, 3) or not files:
        raise ArtifactError(f"{path} must give a place in a shard for each of {count} images, but does not.")
    if digests.dtype != torch.uint8 or digests.shape != (count, DIGEST):
        raise ArtifactError(f"{path} must give a digest for each of {count} images, but does not.")
    _check_places(path, place_N3, files)
    shards = Shards(files, place_at(place))
    images = ShardedImages(
        shards, description["shape"], place_N3, digests, window_bytes=description["shards"]["window_bytes"]
    )
    return images, labels


def _shard_file(path: Path, entry: list[Any]) -> ShardFile:
    try:
        name, size, digest = entry
        if NAME.fullmatch(str(name)) and SHA256.fullmatch(str(digest)) and isinstance(size, int) and size > 0:
            return ShardFile(str(name), size, str(digest))
    except (TypeError, ValueError):
        pass
    raise ArtifactError(f"{path.parent} must give name, size and sha256 of each shard, but has {str(entry)[:80]!r}.")


def _check_places(path: Path, place_N3: Tensor, files: list[ShardFile]) -> None:
    number_N, offset_N, length_N = place_N3.unbind(1)
    inside = (number_N >= 0) & (number_N < len(files)) & (offset_N >= 0) & (length_N > 0)
    sizes = torch.tensor([file.size for file in files])
    inside &= offset_N <= sizes[number_N.clamp(0, len(files) - 1)] - length_N
    if not inside.all():
        raise ArtifactError(f"{path} must place each image in a shard, but image {int((~inside).nonzero()[0])} is not.")


def described_shards(splits: Mapping[str, Images], directory: Path) -> dict[str, Any]:
    """Return what dataset.json says of the shards of ``splits``; {} if there are none.

    Shards of a local directory become part of the artifact in ``directory``, as links where the disk allows it.

    Raises:
        InputError: some splits are in shards and others not, or the shards are in several places.
        ShardError: a local shard is missing.
    """
    sharded = {name: images for name, images in splits.items() if isinstance(images, ShardedImages)}
    if not sharded:
        return {}
    places = {images.shards.place.root for images in sharded.values()}
    if len(sharded) < len(splits) or len(places) > 1:
        raise InputError(f"all splits must be in shards in one place, but got {', '.join(sharded)} in {places}.")
    place, *_ = places
    if "://" not in place:
        for images in sharded.values():
            _join(Path(place), directory / FOLDER, images)
    windows = min(images.window_bytes for images in sharded.values())
    files = {name: [list(file) for file in images.shards.files] for name, images in sharded.items()}
    return {"place": place if "://" in place else "", "window_bytes": windows, "files": files}


def _join(source: Path, folder: Path, images: ShardedImages) -> None:
    folder.mkdir(exist_ok=True)
    for file in images.shards.files:
        try:
            try:
                os.link(source / file.name, folder / file.name)
            except FileNotFoundError:
                raise
            except OSError:  # another disk, or one without links
                shutil.copyfile(source / file.name, folder / file.name)
        except FileNotFoundError:
            raise missing(shown(source / file.name)) from None


def beside(shards: ShardsDescription | None) -> Iterator[str]:
    """Yield the names of the shards that are files of the artifact."""
    if shards and not shards["place"]:
        yield from (f"{FOLDER}/{entry[0]}" for entries in shards["files"].values() for entry in entries)


def place_of(shards: ShardsDescription | None, directory: Path, address: str) -> str:
    """Return directory or address of the shards of an artifact.

    Args:
        shards: what dataset.json says of them.
        directory: of the artifact.
        address: where ``directory`` was copied from without its shards; empty: it is whole.
    """
    if shards and shards["place"]:
        return shards["place"]
    return f"{address.rstrip('/')}/{FOLDER}" if address else str(directory / FOLDER)
