"""Put a data set in memory into shards, image by image, for tests that compare the two."""

import dataclasses
import os
from pathlib import Path

import torch
from kondense.data.dataset import SPLITS, Dataset, Split
from kondense.data.examination import pixel_digests
from kondense.data.shard_cache import place_at
from kondense.data.shard_writer import ShardWriter
from kondense.data.shards import Shards
from kondense.data.streamed import ShardedImages


def sharded(dataset: Dataset, directory: Path, *, shard_bytes: int = 8192, window_bytes: int = 2**33) -> Dataset:
    """Return ``dataset`` with the same images in shards in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    splits = {}
    for name in SPLITS:
        split = dataset.split(name)
        pixels = split.images.numpy()
        writer = ShardWriter(name, directory, lambda shard, path: os.replace(path, directory / shard), shard_bytes)
        for image, label in zip(pixels, split.labels.tolist(), strict=True):
            writer.add(image, label)
        writer.close()
        images = ShardedImages(
            Shards(writer.files, place_at(str(directory))),
            pixels.shape[1:],
            torch.from_numpy(writer.places),
            torch.from_numpy(pixel_digests(pixels)),
            window_bytes=window_bytes,
        )
        splits[name] = Split(images, split.labels)
    return dataclasses.replace(dataset, **splits)
