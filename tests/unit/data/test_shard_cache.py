"""Shards of a store, through the local cache; a directory stands for the bucket."""

import errno

import pytest
import torch
from kondense.data import patience, shard_cache
from kondense.data.shard_cache import Cached
from kondense.data.shards import ShardError, Shards
from kondense.errors import InputError
from kondense.store.bucket import IncompleteError
from kondense.store.local import LocalStore
from kondense.store.store import StoreError

from tests.support.shard_makers import sharded
from tests.support.toy_training import toy_dataset


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setenv(shard_cache.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(shard_cache, "open_store", lambda address: LocalStore(tmp_path / "bucket"))
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    return tmp_path / "bucket"


@pytest.fixture
def images(bucket):
    local = sharded(toy_dataset(), bucket).train.images
    local.shards = Shards(local.shards.files, Cached("s3://bucket/prefix"))
    return local


def test_shards_are_fetched_once_and_are_right(images, bucket):
    expected = toy_dataset().train.images
    assert torch.equal(images[:], expected)
    for path in bucket.glob("train-*"):
        path.unlink()
    assert torch.equal(images[:], expected)


def test_the_cache_keeps_to_its_bound(images, monkeypatch, tmp_path):
    images.shards.place.bound = bound = 3 * max(file.size for file in images.shards.files)
    assert torch.equal(images[:], toy_dataset().train.images)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.tar")) <= bound
    images.shards.place.bound = 10
    images.shards.place.directory = tmp_path / "other"
    with pytest.raises(InputError, match="must be at least"):
        images[:1]


@pytest.mark.parametrize("kind", ["lost", "changed"])
def test_a_lost_or_changed_shard_is_named(images, bucket, kind):
    path = bucket / images.shards.files[0].name
    content = path.read_bytes()
    path.unlink()
    if kind == "changed":
        path.write_bytes(content[:-1] + b"x")
    with pytest.raises(ShardError, match=rf"s3://bucket/prefix/{path.name}.* another version|of another version"):
        images[:1]


def failing(monkeypatch, error, times):
    calls = []
    download = LocalStore.download_file

    def flaky(store, key, path):
        calls.append(key)
        if len(calls) <= times:
            raise error
        download(store, key, path)

    monkeypatch.setattr(LocalStore, "download_file", flaky)
    return calls


def test_a_store_that_is_away_is_waited_for(images, monkeypatch):
    calls = failing(monkeypatch, IncompleteError("it broke off."), 3)
    assert torch.equal(images[:1], toy_dataset().train.images[:1])
    assert len(calls) == 4


def test_a_store_that_is_gone_for_good_is_one_line(images, monkeypatch):
    images.shards.place.wait_s = 0
    failing(monkeypatch, IncompleteError("it broke off."), 10**6)
    with pytest.raises(StoreError, match="it broke off") as caught:
        images[:1]
    assert "\n" not in str(caught.value)


def test_a_refusal_is_not_waited_for(images, monkeypatch):
    calls = failing(monkeypatch, StoreError("it was refused."), 10**6)
    with pytest.raises(StoreError, match="refused"):
        images[:1]
    assert len(calls) == 1


def test_a_full_disk_of_the_cache_is_told_after_making_room(images, monkeypatch):
    assert len(images[:1]) == 1  # one shard is in the cache, and leaves it
    calls = failing(monkeypatch, StoreError(errno.ENOSPC, "No space left on device"), 10**6)
    with pytest.raises(InputError, match="disk is full; KONDENSE_CACHE"):
        images[-1:]
    assert len(calls) == 2
