"""Data sets in shards of an object store, through a real S3 gateway."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kondense.artifacts.model import Model
from kondense.data import patience, shard_cache
from kondense.data.dataset import SPLITS, dataset_digest, load_dataset
from kondense.data.shards import ShardError
from kondense.data.streamed import ShardedImages
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run
from kondense.evaluate.config import EvaluateConfig
from kondense.evaluate.stage import evaluate
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize
from kondense.store.bucket import ObjectStore
from kondense.store.open import open_store
from kondense.store.store import StoreError
from kondense.testing.models import TRAINING
from kondense.training.checkpoint import Checkpoint
from kondense.training.fit import fit
from kondense.training.settings import TrainingConfig
from kondense.trial.stage import fetch
from kondense_pipelines.local.store import ensure_running, local_store, locked, stop
from torch import nn

IMAGES = {"dataset_name": "digits", "limit": 120, "shard_bytes": 8192}

TRAINED = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.02, device="cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(shard_cache.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


def test_every_stage_gives_from_a_bucket_what_it_gives_from_tensors(bucket_uri: str, tmp_path: Path) -> None:
    run(DataPrepConfig(**IMAGES, storage="shards", shards_at=bucket_uri), dataset_dir=tmp_path / "bucket")
    run(DataPrepConfig(**IMAGES, storage="shards"), dataset_dir=tmp_path / "local")
    run(DataPrepConfig(**IMAGES, storage="tensors"), dataset_dir=tmp_path / "tensors")
    assert not (tmp_path / "bucket" / "shards").exists()
    stored = open_store(bucket_uri)
    names = {path.name: hashlib.sha256(path.read_bytes()) for path in (tmp_path / "local" / "shards").iterdir()}
    assert {key: hashlib.sha256(stored.read(key)).digest() for key in stored.list()} == {
        name: digest.digest() for name, digest in names.items()
    }
    spec = NetworkSpec("lenet5", {"classes": 10, "channels": 1, "image_size": 16})
    found = []
    for name in ("bucket", "tensors"):
        data = load_dataset(tmp_path / name)
        pruned = prune(
            Model(build(spec, seed=0).eval(), spec), data, PruneConfig(**TRAINING, sparsity=0.4, round_to=1, steps=1)
        ).model
        model = quantize(pruned, data, QuantizeConfig(method="static", device="cpu")).model
        config = EvaluateConfig(latency_seconds=0.01, arithmetic="integer")  # auto goes by the clock
        evaluation = evaluate(model, data, config).evaluation
        found.append((model.module.state_dict(), evaluation["confusion"], evaluation["robustness"]))
    assert found[0][1:] == found[1][1:]
    assert all(torch.equal(found[0][0][name], found[1][0][name]) for name in found[1][0])


def test_on_a_cluster_the_artifact_is_the_index_alone_and_two_runs_make_the_same(
    bucket_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONDENSE_SHARDS", bucket_uri)
    for name in ("first", "second"):
        run(DataPrepConfig(**IMAGES, storage="shards"), dataset_dir=tmp_path / name)
    assert {path.name for path in (tmp_path / "first").iterdir()} == {
        "dataset.json",
        *(f"{name}.safetensors" for name in SPLITS),
    }
    assert dataset_digest(tmp_path / "first") == dataset_digest(tmp_path / "second")
    data = load_dataset(tmp_path / "first")
    shard = data.train.images.shards.files[0].name
    open_store(bucket_uri).delete(shard)
    with pytest.raises(ShardError, match=f"shard {bucket_uri}/{shard} is missing"):
        data.train.images[:]


def test_a_trial_reads_an_artifact_that_has_its_shards_with_it(bucket_uri: str, tmp_path: Path) -> None:
    run(DataPrepConfig(**IMAGES, storage="shards"), dataset_dir=tmp_path / "made")
    store = open_store(bucket_uri)
    for path in sorted((tmp_path / "made").rglob("*")):
        if path.is_file():
            store.upload_file(path.relative_to(tmp_path / "made").as_posix(), path)
    fetched = load_dataset(fetch(bucket_uri, tmp_path / "fetched", "dataset.json"))
    assert torch.equal(fetched.test.images[:], load_dataset(tmp_path / "made").test.images[:])


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10))


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], Any]) -> None:
    """Call ``act`` when the training asks for its batch number ``step``."""
    read, seen = ShardedImages.read, []

    def counted(images: ShardedImages, index_B: torch.Tensor) -> torch.Tensor:
        seen.append(len(index_B))
        if len(seen) == step:
            act()
        return read(images, index_B)

    monkeypatch.setattr(ShardedImages, "read", counted)


def without_cache(cache: Path) -> None:
    for path in cache.glob("*.tar"):
        path.unlink()


def test_a_store_that_is_gone_in_mid_epoch_is_waited_for_and_for_good_leaves_the_checkpoint(
    own_gateway_dir: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PAUSE_S", 0.2)
    monkeypatch.setitem(ObjectStore.__init__.__kwdefaults__, "delays_s", (0.1,))
    with local_store(own_gateway_dir, {}) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        run(DataPrepConfig(**IMAGES, storage="shards", shards_at="s3://own/shards"), dataset_dir=tmp_path / "data")
        run(DataPrepConfig(**IMAGES, storage="tensors"), dataset_dir=tmp_path / "tensors")
        expected = small_network()
        fit(expected, load_dataset(tmp_path / "tensors"), TRAINED)

        def start_again() -> None:
            with locked(own_gateway_dir):
                ensure_running(own_gateway_dir, anywhere=False)

        def away() -> None:
            with locked(own_gateway_dir):
                stop(own_gateway_dir)
            without_cache(cache)
            threading.Timer(1.5, start_again).start()

        with monkeypatch.context() as patched:
            at_step(patched, 3, away)
            waited = small_network()
            fit(waited, load_dataset(tmp_path / "data"), TRAINED)
        assert all(map(torch.equal, waited.parameters(), expected.parameters()))

        def gone() -> None:
            with locked(own_gateway_dir):
                stop(own_gateway_dir)
            without_cache(cache)

        monkeypatch.setenv(patience.WAIT, "0")
        checkpoint = Checkpoint(open_store(str(tmp_path / "checkpoints")), "train/key", seconds=0.0)
        with monkeypatch.context() as patched:
            at_step(patched, 3, gone)
            with pytest.raises(StoreError, match=rf"cannot be reached.*waited 0 s, {patience.WAIT}") as caught:
                fit(small_network(), load_dataset(tmp_path / "data"), TRAINED, checkpoint=checkpoint)
        assert "\n" not in str(caught.value)
        state = checkpoint.load(epochs=TRAINED.epochs)
        assert state is not None and (state.position["epoch"], state.position["step"]) > (0, 0)
        start_again()
        resumed = small_network()
        fit(resumed, load_dataset(tmp_path / "data"), TRAINED, checkpoint=checkpoint)
        assert all(map(torch.equal, resumed.parameters(), expected.parameters()))
