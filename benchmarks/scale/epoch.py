"""One epoch of training from shards, in a process of its own: prints memory before it, images and seconds."""

import dataclasses
import sys
import time
from pathlib import Path

from kondense.data.dataset import Split, load_dataset
from kondense.data.streamed import ShardedImages
from kondense.training.fit import fit
from kondense.training.settings import TrainingConfig
from torch import nn

from benchmarks.scale.memory import set_size

VALIDATION = 64  # images, the same number for all sizes; they are predicted 500 at a time


def main() -> None:
    """Train a network that is small for its images, so that most of the time is the data path's."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10)
    )
    before = set_size("self")
    dataset = load_dataset(Path(sys.argv[1]))
    dataset = dataclasses.replace(dataset, validation=first(dataset.validation, VALIDATION))
    config = TrainingConfig(epochs=1, batch_size=64, learning_rate=0.01, augment="flip", device="cpu")
    began = time.monotonic()
    fit(module, dataset, config)
    print(before, len(dataset.train), time.monotonic() - began)


def first(split: Split, count: int) -> Split:
    """Return the first images of a split in shards."""
    images = split.images
    assert isinstance(images, ShardedImages)
    part = ShardedImages(
        images.shards,
        images.shape[1:],
        images.place_N3[:count],
        images.digests[:count],
        window_bytes=images.window_bytes,
    )
    return Split(part, split.labels[:count])


if __name__ == "__main__":
    main()
