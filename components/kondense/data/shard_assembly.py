"""From a collection to the fields of a Dataset whose images are in shards; the images are never all in memory.

Shapes: N images of a split, M of a part, C channels, H height, W width.
"""

import dataclasses
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kondense.data.assembly import Rules, fields_of
from kondense.data.collection import Collection
from kondense.data.dataset_files import Split
from kondense.data.examination import check_classes, check_readable, pixel_digests, without_copies
from kondense.data.picture import Geometry
from kondense.data.pixels import mean_and_std_of, sums
from kondense.data.shard_cache import place_at
from kondense.data.shard_images import PPM
from kondense.data.shard_writer import ShardWriter, Sink
from kondense.data.shards import Shards
from kondense.data.split import Choice, Taken, split_collection, taken_in_parts
from kondense.data.streamed import DIGEST, ShardedImages
from kondense.logging import LOG
from kondense.scratch import claim, release
from kondense.store.open import open_store

MAX_TENSOR_BYTES = 2**31  # of decoded images that a program's data set keeps in memory
CHUNK_BYTES = 32 * 2**20  # of decoded images in memory
SHARD_BYTES, WINDOW_BYTES = 64 * 2**20, 8 * 2**30


@dataclasses.dataclass(frozen=True)
class Target:
    """Where and how shards are written.

    Attributes:
        directory: of the shards, or only of the one in the making if ``address`` is given; it exists.
        address: a directory, or ``s3://bucket/prefix``; empty: ``directory``.
        shard_bytes: size from which a new shard is begun.
        window_bytes: bytes of shards within which training shuffles images.
        encoding: of an image in a shard, see ``kondense.data.shard_images``.
        owner: of the directory, if that goes with the last data set in it.
    """

    directory: Path
    address: str = ""
    shard_bytes: int = SHARD_BYTES
    window_bytes: int = WINDOW_BYTES
    encoding: str = PPM
    owner: object = None

    def sink(self) -> Sink:
        """Return the function that takes a finished shard."""
        if self.address:
            return open_store(self.address).upload_file
        return lambda name, path: os.replace(path, self.directory / name)


class Scratch:
    """A directory of shards that is removed with the last data set that uses it, or at the end of the process."""

    def __init__(self) -> None:
        self.path, lock = claim("shards")
        weakref.finalize(self, _removed, self.path, lock, os.getpid())


def _removed(path: Path, lock: int, owner: int) -> None:
    if os.getpid() == owner:  # a worker process has a copy
        release(path, lock)


def target_for(needed: int, max_tensor_bytes: int, shards_at: str | Path) -> Target | None:
    """Return where a program's data set of ``needed`` bytes goes; None if its images are kept in memory.

    Args:
        needed: bytes of the decoded images.
        max_tensor_bytes: that are kept in memory.
        shards_at: a directory, ``s3://bucket/prefix`` or ``minio://bucket/prefix``; empty: a directory that is removed
            with the data set.
    """
    if needed <= max_tensor_bytes:
        return None
    LOG.info(f"{needed:,} bytes of images are more than max_tensor_bytes, so they are kept as shards")
    if shards_at and "://" not in str(shards_at):
        directory = Path(shards_at).expanduser()
        directory.mkdir(parents=True, exist_ok=True)
        return Target(directory)
    scratch = Scratch()
    return Target(scratch.path, str(shards_at), owner=scratch)


@dataclasses.dataclass
class Written:
    """One split in shards, with what the examination needs of its images.

    Attributes:
        taken: labels and indices of the readable images; ``images`` are the digests of their pixels, [N, 16].
        writer: knows the shards and the images' places in them.
        shape: of one image, (C, H, W).
        total: sums of the pixels, [N, C].
        squares: sums of their squares, [N, C].
    """

    taken: Taken
    writer: ShardWriter
    shape: tuple[int, ...]
    total: NDArray[np.int64]
    squares: NDArray[np.int64]


def assembled_in_shards(
    collection: Collection, rules: Rules, target: Target, *, name: str, seed: int, **cut: Any
) -> dict[str, Any]:
    """Write the images as shards, and return the splits and the facts about them, by the names of Dataset's fields.

    The images, their order and their statistics are those of ``kondense.data.assembly.assembled``.

    Args:
        collection: the images.
        rules: what is done with them.
        target: where the shards go. An image that is left out as a copy stays in its shard, unused.
        name: of the data set, for messages.
        seed: of the split.
        cut: ``validation_size``, ``test_fraction`` and ``limit``, see ``kondense.data.split``.

    Raises:
        InputError: too few images, unreadable ones, or images that the rules refuse.
        StoreError: the target cannot be reached.
    """
    choices = split_collection(collection, seed=seed, **cut)
    written = {part: _written(part, choice, rules.geometry, target) for part, choice in choices.items()}
    taken = {part: one.taken for part, one in written.items()}
    skipped = {"unreadable": check_readable(taken, rules.max_bad)}
    kept = without_copies(taken, rules.duplicates)
    skipped["duplicate"] = sum(map(len, taken.values())) - sum(map(len, kept.values()))
    check_classes(collection.classes, kept, limited=bool(cut.get("limit")), strict=rules.strict)
    rows = {part: np.isin(taken[part].indices, kept[part].indices, assume_unique=True) for part in kept}
    train = written["train"]
    _, height, width = train.shape
    sums_C = [each[rows["train"]].sum(0) for each in (train.total, train.squares)]
    measured = mean_and_std_of(sums_C[0], sums_C[1], len(kept["train"]) * height * width)
    splits = {part: _split(one, kept[part], rows[part], target) for part, one in written.items()}
    return {**fields_of(collection, rules, name, measured, skipped), **splits}


def _written(part: str, choice: Choice, geometry: Geometry, target: Target) -> Written:
    writer = ShardWriter(part, target.directory, target.sink(), target.shard_bytes, target.encoding)
    digests, parts = [], []
    problems: list[str] = []
    totals, labels, indices = [], [], []
    for taken in taken_in_parts(choice, geometry, CHUNK_BYTES):
        problems += taken.problems
        if not len(taken):
            continue
        for image_CHW, label in zip(taken.images, taken.labels.tolist(), strict=True):
            writer.add(image_CHW, label)
        digests.append(pixel_digests(taken.images))
        totals.append(np.stack(sums(taken.images)))
        parts.append(taken.images.shape[1:])
        labels.append(taken.labels)
        indices.append(taken.indices)
    writer.close()
    if not parts:
        nothing = np.empty((0, DIGEST), np.uint8)
        none = np.empty(0, np.int64)
        empty = Taken(nothing, none, choice.part, none, tuple(problems))
        return Written(empty, writer, (0, 0, 0), np.empty((0, 0), np.int64), np.empty((0, 0), np.int64))
    total_NC, squares_NC = np.concatenate(totals, axis=1)
    all_taken = Taken(
        np.concatenate(digests), np.concatenate(labels), choice.part, np.concatenate(indices), tuple(problems)
    )
    return Written(all_taken, writer, parts[0], total_NC, squares_NC)


def _split(written: Written, kept: Taken, row_N: NDArray[np.bool_], target: Target) -> Split:
    shards = Shards(written.writer.files, place_at(target.address or str(target.directory)), owner=target.owner)
    place_N3 = torch.from_numpy(written.writer.places)[torch.from_numpy(row_N)]
    digests = torch.from_numpy(kept.images)
    images = ShardedImages(shards, written.shape, place_N3, digests, window_bytes=target.window_bytes)
    return Split(images, torch.from_numpy(kept.labels))
