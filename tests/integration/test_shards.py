"""Data sets in shards of an object store, through a real S3 gateway."""

import hashlib
from pathlib import Path

import pytest
import torch
from kondense.artifacts.model import Model
from kondense.data import shard_cache
from kondense.data.dataset import SPLITS, dataset_digest, load_dataset
from kondense.data.shards import ShardError
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run
from kondense.evaluate.config import EvaluateConfig
from kondense.evaluate.stage import evaluate
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize
from kondense.store.open import open_store
from kondense.testing.models import TRAINING
from kondense.trial.stage import fetch

IMAGES = {"dataset_name": "digits", "limit": 120, "shard_bytes": 8192}


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
        evaluation = evaluate(model, data, EvaluateConfig(latency_seconds=0.01)).evaluation
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
