"""Training from shards: the weights are those of training from memory, however it is interrupted."""

import dataclasses
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from kondense.data import workers
from kondense.data.shards import ShardError
from kondense.data.workers import delivered
from kondense.errors import KondenseError
from kondense.store.open import open_store
from kondense.training.checkpoint import Checkpoint
from kondense.training.fit import fit
from kondense.training.settings import TrainingConfig
from torch import nn
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from tests.support.shard_makers import sharded
from tests.support.toy_training import toy_dataset

CONFIG = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.02, augment="crop_flip", device="cpu")


class StopError(Exception):
    """Stands for a kill."""


class Network(nn.Module):
    """Uses the global generator in training, so that another state of it gives other weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.linear, self.dropout = nn.Linear(256, 3), nn.Dropout(0.3)

    def forward(self, images):
        return self.linear(self.dropout(images.flatten(1)))


def trained(dataset, config=CONFIG, **options):
    module = Network()
    curve = fit(module, dataset, config, **options)
    return module.state_dict(), curve


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def with_workers(monkeypatch):
    """Two worker processes, even for the few images of a test."""
    monkeypatch.setattr(workers, "FEW", 0)
    monkeypatch.setenv(workers.WORKERS, "2")
    # torch looks for dead workers every 5 s.
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))


@pytest.fixture
def shards(tmp_path):
    return sharded(toy_dataset(), tmp_path / "shards")


@pytest.mark.parametrize("augment", ["none", "crop_flip", "resized_crop+mixup"])
def test_shards_give_the_weights_of_images_in_memory(shards, augment):
    config = dataclasses.replace(CONFIG, augment=augment)
    expected, curve = trained(toy_dataset(), config)
    found, same = trained(shards, config)
    assert equal(found, expected)
    assert same == curve


@pytest.mark.usefixtures("with_workers")
def test_worker_processes_give_the_same_weights(shards):
    expected, _ = trained(toy_dataset(), dataclasses.replace(CONFIG, augment="resized_crop"))
    found, _ = trained(shards, dataclasses.replace(CONFIG, augment="resized_crop"))
    assert equal(found, expected)


@pytest.mark.parametrize("window_bytes", [2**33, 20_000])
def test_a_run_stopped_within_an_epoch_goes_on_with_the_very_next_image(tmp_path, monkeypatch, window_bytes):
    dataset = sharded(toy_dataset(), tmp_path / "shards", window_bytes=window_bytes)
    whole, _ = trained(dataset)
    checkpoint = Checkpoint(open_store(str(tmp_path / "store")), "train/key", seconds=0.0)
    served = []
    read = type(dataset.train.images).read

    def recording(images, index_B):
        if len(index_B) == CONFIG.batch_size:
            served.extend(index_B.tolist())
            if len(served) > 4 * CONFIG.batch_size:
                raise StopError
        return read(images, index_B)

    monkeypatch.setattr(type(dataset.train.images), "read", recording)
    with pytest.raises(StopError):
        trained(dataset, checkpoint=checkpoint)
    done = served[: 4 * CONFIG.batch_size]
    served.clear()
    monkeypatch.setattr(
        type(dataset.train.images), "read", lambda images, index: (served.append(index), read(images, index))[1]
    )
    resumed, _ = trained(dataset, checkpoint=checkpoint)
    assert equal(resumed, whole)
    rest = torch.cat([index for index in served if len(index) == CONFIG.batch_size])[
        : len(dataset.train) - len(done)
    ].tolist()
    assert sorted(done + rest) == list(range(len(dataset.train)))  # each image of the epoch once


def test_a_bad_shard_stops_the_run_at_its_step_and_the_run_goes_on_when_it_is_mended(tmp_path, monkeypatch):
    dataset = sharded(toy_dataset(), tmp_path / "shards", window_bytes=20_000)
    whole, _ = trained(dataset)
    images = dataset.train.images
    # The shard that the second half of the first epoch needs first.
    from kondense.training.feed import step_generator

    order = images.shuffled(step_generator(CONFIG.seed, 0))
    last = int(images.place_N3[order[-1], 0])
    path = tmp_path / "shards" / images.shards.files[last].name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    checkpoint = Checkpoint(open_store(str(tmp_path / "store")), "train/key")
    with pytest.raises(ShardError, match=path.name):
        trained(dataset, checkpoint=checkpoint)
    state = checkpoint.load(epochs=CONFIG.epochs)
    assert state is not None
    assert (state.position["epoch"], state.position["step"]) > (0, 0)
    path.write_bytes(content)
    resumed, _ = trained(dataset, checkpoint=checkpoint)
    assert equal(resumed, whole)


@pytest.mark.usefixtures("with_workers")
def test_a_killed_worker_is_replaced(shards, monkeypatch, caplog):
    expected = torch.cat(list(toy_dataset().train.images.split(16)))
    images = shards.train.images
    parts = images.split(16)
    found = [next(parts)]
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    found += list(parts)
    assert torch.equal(torch.cat(found), expected)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("with_workers")
def test_a_worker_that_is_killed_as_it_looks_whether_to_end_is_replaced(shards, tmp_path, monkeypatch):
    """An event of multiprocessing has a lock, which stays locked then: torch waited for it, and the step hung."""
    parent, killed = os.getpid(), tmp_path / "killed"
    read = type(shards.train.images).read

    def dying(images, index_B):
        if os.getpid() != parent and not killed.exists():
            killed.touch()
            frame = sys._getframe()
            while "done_event" not in frame.f_locals:
                frame = frame.f_back
            if (lock := getattr(frame.f_locals["done_event"], "_cond", None)) is not None:
                lock.acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        return read(images, index_B)

    monkeypatch.setattr(type(shards.train.images), "read", dying)
    found = torch.cat(list(shards.train.images.split(16)))
    assert killed.exists()
    assert torch.equal(found, torch.cat(list(toy_dataset().train.images.split(16))))


@pytest.mark.usefixtures("with_workers")
def test_workers_that_die_again_and_again_end_the_step_with_the_reason(shards, monkeypatch):
    parent = os.getpid()
    read = type(shards.train.images).read

    def dying(images, index_B):
        if os.getpid() != parent:
            os._exit(9)
        return read(images, index_B)

    monkeypatch.setattr(type(shards.train.images), "read", dying)
    with pytest.raises(KondenseError, match=r"died 4 times: DataLoader worker .* exited unexpectedly"):
        list(shards.train.images.split(16))


@pytest.mark.usefixtures("with_workers")
def test_an_error_in_a_worker_is_one_line(shards, tmp_path):
    next((tmp_path / "shards").glob("train-*")).unlink()
    with pytest.raises(ShardError, match="is missing") as caught:
        list(shards.train.images.split(16))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("with_workers")
def test_a_worker_does_not_grow_with_its_batches(monkeypatch):
    """Batches of 10 MB; before glibc was told to return them, a worker grew by 300 MB in 20."""
    monkeypatch.setenv(workers.WORKERS, "1")

    def read(index):
        return torch.ones(10**7, dtype=torch.uint8)

    def change(number, images):
        return images.clone(), torch.get_rng_state()

    held = []
    for _ in delivered(read, [torch.arange(2)] * 24, change, image_bytes=1):
        (child,) = multiprocessing.active_children()
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        held += [int(line.split()[1]) for line in lines if line.startswith("VmData:")]  # not what it shares by copies
        if len(held) == 20:  # at the end, the worker is gone
            break
    assert max(held[15:]) < max(held[:5]) + 50_000, held


def test_batches_ahead_are_bounded_in_bytes(monkeypatch):
    monkeypatch.setenv(workers.WORKERS, "4")
    monkeypatch.setenv(workers.PREFETCH, "1000")
    monkeypatch.setattr(workers.os, "statvfs", lambda path: (_ for _ in ()).throw(OSError))
    assert workers.planned(50) == (4, 4)
    assert workers.planned(100) == (4, 2)
    assert workers.planned(400) == (2, 1)
    assert workers.planned(1001) == (0, 0)  # this process decodes
