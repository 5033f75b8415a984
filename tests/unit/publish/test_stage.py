import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
from kondense.artifacts.model import load_model
from kondense.data.dataset import load_dataset
from kondense.files import ArtifactError, file_digests
from kondense.publish import versions
from kondense.publish.config import PublishConfig
from kondense.publish.stage import run
from kondense.store.local import LocalStore
from kondense_pipelines.cli.models import verify_models

from tests.support.data_makers import make_digits
from tests.support.publish_makers import Made, make_publishable

NAME = "lenet5-digits"


class Shop:
    """A store in a directory, and a publisher that reads its receipts."""

    def __init__(self, root: Path, dataset_dir: Path) -> None:
        self.root = root
        self.dataset_dir = dataset_dir
        self.store = LocalStore(root / "store")
        self.count = 0

    def make(self, **figures) -> Made:
        self.count += 1
        return make_publishable(
            self.root / f"run-{self.count}", figures.pop("dataset_dir", self.dataset_dir), **figures
        )

    def publish(self, made: Made, **options) -> dict:
        config = PublishConfig(store_uri=str(self.store.root), **options)
        metrics = run(config, **made._asdict(), receipt_dir=self.root / "receipt")
        receipt = json.loads((self.root / "receipt" / "receipt.json").read_text())
        assert metrics["published"] == float(receipt["published"])
        assert all(isinstance(value, float) for value in metrics.values())
        return {**receipt, "metrics": metrics}

    def champion(self) -> str:
        champion = versions.read_champion(self.store, NAME)
        return champion["version"] if champion else ""


@pytest.fixture
def shop(tmp_path: Path, digits16_dir: Path) -> Shop:
    return Shop(tmp_path, digits16_dir)


def test_publishes_the_artifact_with_its_report(shop: Shop, tmp_path: Path) -> None:
    made = shop.make()
    receipt = shop.publish(made)
    version = receipt["version"]
    assert receipt["published"] and receipt["model_name"] == NAME and receipt["champion_before"] is None
    assert receipt["uri"] == f"{shop.store.uri}/models/{NAME}/{version}"
    assert shop.champion() == version and versions.version_ids(shop.store, NAME) == [version]
    shop.store.download_directory(f"models/{NAME}/{version}", tmp_path / "pulled")
    expected = {**file_digests(made.chosen_dir), **file_digests(made.report_dir)}
    pulled = file_digests(tmp_path / "pulled")
    assert {**pulled, **expected} == pulled and set(pulled) - set(expected) == {"version.json"}
    load_model(tmp_path / "pulled")


def test_the_same_model_again_changes_nothing(shop: Shop) -> None:
    first = shop.publish(shop.make())
    before = file_digests(shop.store.root)
    again = shop.publish(shop.make(latency_ms=0.06, test_accuracy=0.8999))  # measured anew, another evaluation.json
    assert not again["published"] and again["version"] == first["version"] and again["uri"] == first["uri"]
    assert again["reason"].startswith("nothing new: version")
    assert file_digests(shop.store.root) == before


@pytest.mark.parametrize(
    ("figures", "options", "reason"),
    [
        ({"test_accuracy": 0.89}, {}, "test accuracy at most 1.00 points below the teacher's 90.50 %: 89.00 %"),
        ({"onnx_accuracy": 0.89}, {}, "exported test accuracy at most 1.00 points below"),
        ({"test_accuracy": 0.9}, {"max_test_drop": 0.004}, "at most 0.40 points below"),
    ],
)
def test_a_gate_that_does_not_hold_publishes_nothing(shop: Shop, figures: dict, options: dict, reason: str) -> None:
    receipt = shop.publish(shop.make(**figures), **options)
    assert not receipt["published"] and receipt["version"] == receipt["uri"] == ""
    assert reason in receipt["reason"]
    assert [check["holds"] for check in receipt["checks"]].count(False) >= 1
    assert not shop.store.root.exists()


def test_a_better_model_takes_over_and_a_worse_one_does_not(shop: Shop) -> None:
    first = shop.publish(shop.make(seed=1, test_accuracy=0.9))
    worse = shop.publish(shop.make(seed=2, test_accuracy=0.897))
    assert not worse["published"] and f"below the 90.00 % of champion {first['version']}" in worse["reason"]
    assert worse["metrics"]["champion_test_accuracy"] == 0.9
    larger = shop.publish(shop.make(seed=3, test_accuracy=0.9, kz=30_000))
    assert not larger["published"] and "20000 B in weights.kz" in larger["reason"]
    better = shop.publish(shop.make(seed=4, test_accuracy=0.903, kz=20_500))
    assert better["published"] and better["champion_before"]["version"] == first["version"]
    champion = versions.read_champion(shop.store, NAME)
    assert (champion["version"], champion["previous"]) == (better["version"], first["version"])
    assert len(versions.version_ids(shop.store, NAME)) == 2


def test_accuracy_does_not_sink_by_the_tolerance_at_every_publication(shop: Shop) -> None:
    published = [
        shop.publish(shop.make(seed=index, test_accuracy=accuracy))["published"]
        for index, accuracy in enumerate((0.9, 0.8985, 0.897))
    ]
    assert published == [True, True, False]


def test_an_earlier_version_that_holds_the_gate_is_champion_again(shop: Shop) -> None:
    earlier, later = shop.make(seed=1, kz=20_400), shop.make(seed=2)
    first, second = shop.publish(earlier), shop.publish(later)
    third = shop.publish(earlier)
    assert third["published"] and third["version"] == first["version"] == shop.champion()
    assert third["champion_before"]["version"] == second["version"]
    assert len(versions.version_ids(shop.store, NAME)) == 2


def test_a_champion_of_another_test_split_is_measured_anew(shop: Shop, tmp_path: Path) -> None:
    first = shop.publish(shop.make(seed=1, test_accuracy=0.95, teacher_accuracy=0.95))
    newer = make_digits(tmp_path / "newer", image_size=16, seed=1)
    module, dataset = load_model(shop.root / "run-1" / "chosen").module, load_dataset(newer)
    images = dataset.normalise(dataset.test.images)
    measured = float((module(images).argmax(dim=1) == dataset.test.labels).double().mean())
    assert measured < 0.4  # untrained: the 0.95 was made up, and stands in its record
    receipt = shop.publish(shop.make(dataset_dir=newer, seed=2, test_accuracy=0.5, teacher_accuracy=0.5))
    assert receipt["metrics"]["champion_test_accuracy"] == pytest.approx(measured, abs=1e-9)
    assert receipt["published"] and receipt["champion_before"]["version"] == first["version"]


def test_a_model_of_other_images_is_not_published_under_the_same_name(shop: Shop, digits_dir: Path) -> None:
    shop.publish(shop.make(seed=1))
    receipt = shop.publish(shop.make(dataset_dir=digits_dir, seed=2))
    assert not receipt["published"] and "publish it under another name" in receipt["reason"]
    assert shop.publish(shop.make(dataset_dir=digits_dir, seed=2), model_name="small-digits")["published"]


def test_refuses_a_report_about_another_model_or_dataset(shop: Shop, tmp_path: Path, digits_dir: Path) -> None:
    one, other = shop.make(seed=1), shop.make(seed=2)
    with pytest.raises(ArtifactError, match="must describe the model in"):
        shop.publish(one._replace(report_dir=other.report_dir))
    with pytest.raises(ArtifactError, match="the report must be made on the dataset in"):
        shop.publish(one._replace(dataset_dir=digits_dir))
    damaged = tmp_path / "damaged"
    shutil.copytree(one.chosen_dir, damaged)
    (damaged / "model.onnx").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match="model.onnx must have sha256"):
        shop.publish(one._replace(chosen_dir=damaged))
    assert not shop.store.root.exists() and not (tmp_path / "receipt").exists()


def test_a_damaged_pointer_is_an_error_and_stays(shop: Shop) -> None:
    shop.publish(shop.make(seed=1))
    shop.store.write(f"models/{NAME}/champion.json", b'{"format_version": 9}')
    with pytest.raises(ArtifactError, match="champion.json must have format_version 1, but got 9"):
        shop.publish(shop.make(seed=2))


def killed_before(operation: int, shop: Shop, made: Made) -> bool:
    """Publish in a process that dies by SIGKILL before its store's ``operation``-th change; False when it ended."""

    def work() -> None:
        left = [operation]

        def counted(method):
            def call(*args, **options):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return method(*args, **options)

            return call

        LocalStore.write, LocalStore.upload_file = counted(LocalStore.write), counted(LocalStore.upload_file)
        shop.publish(made)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_killed_at_any_moment_and_run_again(shop: Shop) -> None:
    first, second = shop.make(seed=1), shop.make(seed=2, test_accuracy=0.905)
    expected = shop.publish(first)["version"]
    for operation in range(40):
        died = killed_before(operation, shop, second)
        assert all(not result.problem for result in verify_models(shop.store))
        if not died:
            break
        assert shop.champion() == expected
        assert not list(shop.root.glob("receipt/receipt-*"))
        if operation % 3 == 2:
            receipt = shop.publish(second)
            assert receipt["published"] and shop.champion() == receipt["version"] != expected
            assert len(versions.version_ids(shop.store, NAME)) == 2
            shutil.rmtree(shop.store.root)
            shop.publish(first)
    assert not died and operation == 10  # eight files, the manifest, the pointer
    assert shop.champion() != expected
