"""Whether the newest data call for a challenger, and how the champion does on them."""

import json
from pathlib import Path

import pytest
from kondense.artifacts.model import load_model
from kondense.champion.config import ChampionConfig
from kondense.champion.stage import run
from kondense.data.dataset import load_dataset, save_dataset
from kondense.measuring.accuracy import accuracy, predict
from kondense.publish.config import PublishConfig
from kondense.publish.stage import run as publish
from kondense.publish.versions import read_champion
from kondense.store.open import open_store
from kondense.store.store import StoreError

from tests.support.data_makers import make_digits
from tests.support.publish_makers import make_publishable

NAME = "lenet300-digits"


class Published:
    """A store with a champion made from ``digits16_dir``, and the stage's call."""

    def __init__(self, directory: Path, dataset: Path) -> None:
        self.directory, self.uri = directory, str(directory / "store")
        self.made = make_publishable(directory, dataset)
        publish(
            PublishConfig(store_uri=self.uri, model_name=NAME), receipt_dir=directory / "receipt", **self.made._asdict()
        )

    def __call__(self, dataset: Path, **config: object) -> tuple[dict[str, float], dict[str, object]]:
        given = {"store_uri": self.uri, "network": "lenet300", **config}
        metrics = run(ChampionConfig(**given), dataset_dir=dataset, champion_dir=self.directory / "verdict")
        return metrics, json.loads((self.directory / "verdict" / "champion.json").read_text())


@pytest.fixture
def published(tmp_path: Path, digits16_dir: Path) -> Published:
    return Published(tmp_path, digits16_dir)


def test_the_same_data_call_for_no_challenger(published: Published, digits16_dir: Path) -> None:
    metrics, verdict = published(digits16_dir)
    version = read_champion(open_store(published.uri), NAME)["version"]
    assert metrics == {"challenge": 0.0, "champion_test_accuracy": 0.9}  # as it was measured when published
    assert (verdict["challenge"], verdict["version"], verdict["model_name"]) == (False, version, NAME)
    assert verdict["reason"] == f"champion {version} was made from the same data"
    assert published(digits16_dir, always=True)[0]["challenge"] == 1.0


def test_other_data_do_and_the_champion_is_measured_on_them(published: Published, tmp_path: Path) -> None:
    other = make_digits(tmp_path / "other", image_size=16, seed=5)
    metrics, verdict = published(other)
    dataset = load_dataset(other)
    logits_NK = predict(load_model(published.made.chosen_dir).module, dataset.test, dataset)
    assert metrics == {"challenge": 1.0, "champion_test_accuracy": accuracy(logits_NK, dataset.test.labels)}
    assert "was made from other data" in verdict["reason"]


def test_a_champion_for_other_images_has_no_accuracy_on_these(published: Published, digits_dir: Path) -> None:
    metrics, verdict = published(digits_dir)  # 8x8
    assert metrics == {"challenge": 1.0}
    assert verdict["test_accuracy"] is None


def test_before_the_first_publication_a_challenger_is_made(published: Published, digits16_dir: Path) -> None:
    metrics, verdict = published(digits16_dir, model_name="another")
    assert metrics == {"challenge": 1.0}
    assert (verdict["version"], verdict["reason"]) == ("", "another has no champion yet")


def test_a_renamed_class_is_another_problem(published: Published, digits16_dir: Path, tmp_path: Path) -> None:
    import dataclasses

    dataset = load_dataset(digits16_dir)
    renamed = dataclasses.replace(dataset, classes=("zero", *dataset.classes[1:]))
    save_dataset(tmp_path / "renamed", renamed)
    assert published(tmp_path / "renamed")[1]["test_accuracy"] is None


def test_bad_input(tmp_path: Path, digits16_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="model_name must be"):
        ChampionConfig(model_name="../x")
    with pytest.raises(ValueError, match="store_uri must be"):
        ChampionConfig(store_uri="")
    for name in ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError, match="Secret mlpipeline-minio-artifact"):
        run(ChampionConfig(), dataset_dir=digits16_dir, champion_dir=tmp_path / "verdict")
    assert not (tmp_path / "verdict").exists()
