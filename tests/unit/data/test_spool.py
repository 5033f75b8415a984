"""A program's data set that exceeds its memory: read from a loader once, kept as shards."""

import gc
import os
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from kondense.data import shard_assembly
from kondense.data.dataset import SPLITS, Dataset
from kondense.data.streamed import ShardedImages

from tests.support.data_makers import make_image_folder

IMAGE, COUNT = (3, 32, 32), 1000


def batches(count=COUNT, size=50, seed=0):
    rng = np.random.default_rng(seed)
    for start in range(0, count, size):
        labels = np.arange(start, start + size) % 3
        yield torch.from_numpy(rng.integers(0, 256, (size, *IMAGE), np.uint8)), torch.from_numpy(labels)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


@pytest.mark.parametrize("place", ["", "kept"])
def test_a_loader_above_the_threshold_becomes_shards_of_the_same_images(tmp_path, temporary, place):
    shards_at = tmp_path / place if place else ""
    inside = Dataset.from_loader(batches(), batches(100, seed=1), name="toys")
    stored = Dataset.from_loader(
        batches(), batches(100, seed=1), name="toys", max_tensor_bytes=400_000, shards_at=shards_at
    )
    assert (stored.mean, stored.std, stored.classes) == (inside.mean, inside.std, inside.classes)
    for name in SPLITS:
        assert isinstance(stored.split(name).images, ShardedImages)
        assert torch.equal(stored.split(name).images[:], inside.split(name).images)
        assert torch.equal(stored.split(name).labels, inside.split(name).labels)
    assert not list(temporary.glob("kondense-scratch-loader-*"))
    stored.save(tmp_path / "saved")
    directory = Path(stored.train.images.shards.place.root)
    del stored
    gc.collect()
    assert directory.exists() == bool(place)
    assert torch.equal(Dataset.from_store(tmp_path / "saved").test.images[:], inside.test.images)


def test_memory_does_not_grow_with_the_loader(monkeypatch):
    """The images are 3.1 and 12.3 MB; a first run has imported all that is needed."""
    monkeypatch.setattr(shard_assembly, "CHUNK_BYTES", 2**18)
    peaks = []
    for count in (50, COUNT, 4 * COUNT):
        tracemalloc.start()
        data = Dataset.from_loader(batches(count), max_tensor_bytes=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(data.train) + len(data.validation) + len(data.test) == count
    assert peaks[2] < peaks[1] + 3 * COUNT * np.prod(IMAGE) / 10, peaks


def test_a_process_of_its_own_does_not_remove_the_shards():
    data = Dataset.from_loader(batches(100), max_tensor_bytes=0)
    child = os.fork()
    if not child:
        data.train.images.shards.owner.__dict__.clear()
        del data
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(data.train.images[:]) == len(data.train)


def test_a_folder_above_the_threshold_becomes_shards_of_the_same_images(tmp_path):
    source = make_image_folder(tmp_path / "images")
    inside = Dataset.from_folder(source, image_size=8)
    stored = Dataset.from_folder(source, image_size=8, max_tensor_bytes=100)
    for name in SPLITS:
        assert torch.equal(stored.split(name).images[:], inside.split(name).images)
