"""Publishing into a real bucket, by several at once."""

import json
import multiprocessing
from pathlib import Path

import pytest
from kondense.publish.config import PublishConfig
from kondense.publish.stage import run
from kondense.publish.versions import read_champion, version_ids
from kondense.store.open import open_store
from kondense.store.store import StoreError
from kondense_pipelines.cli.models import list_models, verify_models

from tests.support.publish_makers import Made, make_publishable

NAME = "raced"


def publish(made: Made, uri: str, receipt_dir: Path) -> None:
    run(PublishConfig(store_uri=uri, model_name=NAME), **made._asdict(), receipt_dir=receipt_dir)


def race(models: list[Made], uri: str, directory: Path) -> list[dict]:
    """Publish all models at the same time, each in its process; return the receipts."""
    receipts = [directory / f"receipt-{index}" for index in range(len(models))]
    start = multiprocessing.get_context("fork").Process
    processes = [
        start(target=publish, args=(made, uri, receipt)) for made, receipt in zip(models, receipts, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    return [json.loads((receipt / "receipt.json").read_text()) for receipt in receipts]


def test_publishes_into_a_bucket_once(bucket_uri: str, tmp_path: Path, digits16_dir: Path) -> None:
    made = make_publishable(tmp_path, digits16_dir)
    publish(made, bucket_uri, tmp_path / "receipt")
    keys = open_store(bucket_uri).list()
    publish(made, bucket_uri, tmp_path / "again")
    first, again = (json.loads((tmp_path / name / "receipt.json").read_text()) for name in ("receipt", "again"))
    assert first["published"] and not again["published"] and first["uri"] == again["uri"]
    assert first["uri"].startswith(f"{bucket_uri}/models/{NAME}/")
    assert open_store(bucket_uri).list() == keys
    assert [result.problem for result in verify_models(open_store(bucket_uri))] == [""]


@pytest.mark.parametrize("attempt", range(2))
def test_racing_publishers_leave_the_best_as_champion(
    bucket_uri: str, tmp_path: Path, digits16_dir: Path, attempt: int
) -> None:
    accuracies = (0.900, 0.905, 0.910)
    models = [
        make_publishable(tmp_path / str(index), digits16_dir, seed=index, test_accuracy=accuracy)
        for index, accuracy in enumerate(accuracies)
    ]
    receipts = race(models if attempt else models[::-1], bucket_uri, tmp_path)
    store = open_store(bucket_uri)
    best = next(row for row in list_models(store) if row.version.record["test_accuracy"] == 0.910)
    assert best.champion
    # In whatever order, each published one followed the champion before it, and the others lost against one.
    published = [receipt for receipt in receipts if receipt["published"]]
    before = [(receipt["champion_before"] or {}).get("version", "") for receipt in published]
    chain = {"": None} | {receipt["version"]: None for receipt in published if receipt["version"] != best.version.id}
    assert sorted(before) == sorted(chain)
    assert version_ids(store, NAME) == sorted(receipt["version"] for receipt in published)
    assert all("of champion" in receipt["reason"] for receipt in receipts if not receipt["published"])


def test_racing_publishers_of_one_model_publish_it_once(bucket_uri: str, tmp_path: Path, digits16_dir: Path) -> None:
    # The same weights, measured three times: three different reports.
    models = [
        make_publishable(tmp_path / str(index), digits16_dir, latency_ms=0.05 + index / 100) for index in range(3)
    ]
    receipts = race(models, bucket_uri, tmp_path)
    assert sorted(receipt["published"] for receipt in receipts) == [False, False, True]
    store = open_store(bucket_uri)
    assert {receipt["version"] for receipt in receipts} == set(version_ids(store, NAME))
    assert len(version_ids(store, NAME)) == 1
    assert read_champion(store, NAME)["version"] == receipts[0]["version"]
    assert [result.problem for result in verify_models(store)] == [""]


def test_an_unreachable_store_leaves_no_receipt(
    minio_environment: dict[str, str], tmp_path: Path, digits16_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIO_SECRET_KEY", "wrong-secret")
    made = make_publishable(tmp_path, digits16_dir)
    with pytest.raises(StoreError, match="was refused"):
        publish(made, "minio://kondense-tests/x", tmp_path / "receipt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chosen", "report"]
