"""What a preflight finds on a few random images, with the real steps."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from kondense.data.collection import Labelled
from kondense.data.image_files import ImageFiles
from kondense.data.picture import Geometry
from kondense.data.split import SPLITS, Choice
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import read
from kondense.errors import InputError
from kondense.preflight import images as preflight_images
from kondense.preflight.costs import Sizes
from kondense.preflight.examine import QUICK, examine, quick, try_step, with_lineage
from kondense.preflight.images import FETCHED, KNOWN, Known, check_decoded, known_images, random_dataset
from kondense.preflight.request import BENT, DOUBTFUL, IMPOSSIBLE, POSSIBLE, UNTRIED, Check, Request, Step
from kondense.prune.config import PruneConfig
from kondense.quantize.config import QuantizeConfig
from kondense.stages import STAGES
from kondense.store.local import LocalStore
from kondense.store.store import StoreError
from kondense.train.config import TrainConfig
from kondense.train.stage import train
from PIL import Image
from torch import Tensor, nn

NARROW = f"{__name__}:narrow"
DATA = DataPrepConfig(dataset_name="digits").to_dict()


class Narrow(nn.Module):
    """Convolutions so narrow that few channels can go when widths are multiples of 8."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.last = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(torch.relu(self.second(torch.relu(self.first(images)))).mean((2, 3)))


def narrow(classes: int, channels: int, image_size: int) -> Narrow:
    return Narrow(classes, channels)


def wants_colour(classes: int, channels: int, image_size: int) -> Narrow:
    return Narrow(classes, 3)


def step(name: str, stage: str, config, **fields) -> Step:
    return Step(name, stage, stage, config.to_dict(), **fields)


def found(request: Request) -> dict[str, Check]:
    return {check.name: check for check in examine(request)}


def request(network: str, candidates: dict[str, list[Step]], **fields) -> Request:
    return Request(DATA, TrainConfig(network=network).to_dict(), candidates, **fields)


def test_a_default_is_lowered_to_what_is_possible_and_the_next_step_goes_on_from_there() -> None:
    candidates = {
        "pruned": [step("prune", "prune", PruneConfig())],
        "pruned-quantized": [
            step("prune", "prune", PruneConfig()),
            step("quantize pruned", "quantize", QuantizeConfig()),
        ],
    }
    checks = found(request(NARROW, candidates))
    assert [*checks] == ["images", "network", "export teacher", "prune", "quantize pruned", "export pruned-quantized"]
    assert checks["prune"].state == BENT
    (value,) = checks["prune"].changes["prune"].values()
    assert 0.0 < value < PruneConfig().sparsity
    assert f"{value} of the macs is removed instead of 0.75" in checks["prune"].note
    assert {check.state for name, check in checks.items() if name != "prune"} == {POSSIBLE}
    assert not any(check.refused for check in checks.values())


def test_a_default_of_a_weight_method_is_lowered_too() -> None:
    config = PruneConfig(method="magnitude", sparsity=0.999, granularity="neurons")
    check = found(request(NARROW, {"pruned": [step("prune", "prune", config)]}))["prune"]
    assert check.state == BENT
    (value,) = check.changes["prune"].values()
    assert 0.0 < value < 0.999
    assert f"{value} of the weights is pruned instead of 0.999" in check.note
    refused = step("prune", "prune", config, asked_fields=["sparsity"])
    assert found(request(NARROW, {"pruned": [refused]}))["prune"].state == IMPOSSIBLE


@pytest.mark.parametrize("asked", ["field", "candidate"])
def test_what_the_user_asked_for_is_refused_instead(asked: str) -> None:
    fields = {"asked": True, "asked_fields": ["sparsity"]} if asked == "field" else {"asked_fields": ["sparsity"]}
    candidates = {"pruned": [step("prune", "prune", PruneConfig(sparsity=0.9), **fields)]}
    checks = found(request(NARROW, candidates, asked=["pruned"] if asked == "candidate" else []))
    assert checks["prune"].state == IMPOSSIBLE and checks["prune"].refused
    assert checks["prune"].note.startswith("sparsity must be at most")
    assert not checks["prune"].changes


def test_images_that_the_network_cannot_take_are_refused_first() -> None:
    checks = found(request(f"{__name__}:wants_colour", {"quantized": [step("quantize", "quantize", QuantizeConfig())]}))
    assert [*checks] == ["images", "network"]
    assert checks["network"].refused
    assert "must take images of 1x16x16" in checks["network"].note


class Probable(Narrow):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)


def test_a_softmax_in_the_network_is_doubted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "kondense"):
        check = found(request(f"{__name__}:Probable", {}))["network"]
    assert (check.state, check.refused) == (DOUBTFUL, False)
    assert "it returns probabilities, not logits" in check.note and "probabilities" in caplog.text
    assert found(request(NARROW, {}))["network"].state == POSSIBLE


class Noisy(Narrow):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(images, 0.9))


class Centred(Narrow):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(0))


class Detached(Narrow):
    def __init__(self, classes: int, channels: int) -> None:
        super().__init__(classes, channels)
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            images = 2 * super().forward(images)
        return images + self.shift


@pytest.mark.parametrize(
    ("network", "doubt"),
    [("Noisy", "from call to call"), ("Centred", "other images"), ("Detached", "get no gradient and stay as they are")],
)
def test_what_is_wrong_with_a_network_that_can_be_trained_is_doubted(network: str, doubt: str) -> None:
    check = found(request(f"{__name__}:{network}", {}))["network"]
    assert (check.state, check.refused) == (DOUBTFUL, False)
    assert doubt in check.note


LOTTERY = step("prune weights", "prune", PruneConfig(method="lottery"))


def refusal(*steps: Step, network: str = "lenet300", epochs: int = 4) -> str:
    """Return why the first impossible one of ``steps`` is, after a quick training; "" if all are possible."""
    config, dataset = TrainConfig(network=network, epochs=epochs), random_dataset((1, 16, 16), 3)
    model = teacher = with_lineage(config, train(None, dataset, quick(config)), dataset)
    for each in steps:
        check = try_step(each, model, teacher, dataset)
        if check.failed:
            assert not check.fields.get("changes")
            return str(check.fields["note"])
        assert check.result is not None
        model = check.result
    return ""


def test_lottery_tickets_are_tried_with_the_lineage_of_the_real_training() -> None:
    assert refusal(LOTTERY) == ""
    assert "rewind_epochs must be less than the 1 epochs" in refusal(LOTTERY, epochs=1)
    assert "got train > prune" in refusal(step("prune", "prune", PruneConfig(method="magnitude")), LOTTERY)


def test_what_hinders_a_step_besides_its_sparsity_lowers_nothing() -> None:
    excluded = step("prune", "prune", PruneConfig(exclude="first, second, last"))
    assert "has no channel to remove" in refusal(excluded, network=NARROW)


def test_a_folder_is_listed(tmp_path: Path) -> None:
    for name, size in (("cat", (20, 30)), ("dog", (40, 25)), ("fox", (9, 9))):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", size, (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    config = DataPrepConfig(dataset_name="folder", source=str(tmp_path), image_size=16)
    dataset = read(config, tmp_path)
    sizes = Sizes(*(len(dataset.split(name)) for name in SPLITS))
    assert known_images(config) == Known((3, 16, 16), 3, sizes)
    with pytest.raises(InputError, match="validation_size must be below"):  # as data_prep would say later
        known_images(dataclasses.replace(config, validation_size=12))
    (check,) = examine(dataclasses.replace(request("lenet5", {}), data_prep={**config.to_dict(), "image_size": 0}))
    assert check.state == IMPOSSIBLE and check.refused  # images of several sizes


def test_pictures_that_cannot_be_read_are_told_before_any_work(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(6):
            Image.new("L", (16, 16), number).save(tmp_path / name / f"{number}.png")
    config = DataPrepConfig(dataset_name="folder", source=str(tmp_path), image_size=16)
    intact = known_images(config)
    first = tmp_path / "cat" / "0.png"
    first.write_bytes(first.read_bytes()[:45])  # its header is whole
    (tmp_path / "dog" / "3.png").write_bytes(b"")
    with pytest.raises(InputError, match="2 files cannot be read: .*cat/0.png.*dog/3.png") as told:
        known_images(config)
    with pytest.raises(InputError) as later:
        read(config, tmp_path)
    assert str(told.value) == str(later.value)
    assert known_images(dataclasses.replace(config, max_bad=2)) == intact


def test_only_as_many_pictures_are_tried_as_time_allows(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    images = ImageFiles((tmp_path / "0.png",) * 9, Geometry((8, 8), 1))
    choice = Choice(Labelled(images, np.zeros(9, np.int64)), np.arange(9))
    check_decoded([choice], 0, seconds=-1.0)
    with pytest.raises(InputError, match="^9 files cannot be read"):
        check_decoded([choice], 8)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 30 classes with 3 pictures each, which s3://bucket/images is; fetched keys are in ``fetched``."""
    for number in range(30):
        (tmp_path / "data" / f"c{number:02d}").mkdir(parents=True)
        for picture in range(3):
            Image.new("L", (12, 10 + picture % 2), number).save(tmp_path / "data" / f"c{number:02d}" / f"{picture}.png")
    monkeypatch.setattr(preflight_images, "open_store", lambda uri: LocalStore(tmp_path / "data"))
    return tmp_path / "data"


def test_a_few_pictures_of_a_store_are_fetched(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    download = LocalStore.download_file
    monkeypatch.setattr(
        LocalStore, "download_file", lambda self, key, path: (fetched.append(key), download(self, key, path))
    )
    config = DataPrepConfig(dataset_name="folder", source="s3://bucket/images", image_size=16)
    assert known_images(config) == Known((1, 16, 16), 30, Sizes(train=66, validation=6, test=18))
    assert 0 < len(fetched) <= FETCHED
    with pytest.raises(InputError, match="images of several sizes|one size"):
        known_images(dataclasses.replace(config, image_size=0))


def test_a_store_that_is_not_reached_or_empty_is_told(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataPrepConfig(dataset_name="folder", source="s3://bucket/images", image_size=16)
    given = dataclasses.replace(request("lenet5", {}), data_prep=config.to_dict())

    def unreachable(uri: str) -> LocalStore:
        raise StoreError("the store does not answer")

    monkeypatch.setattr(preflight_images, "open_store", lambda uri: LocalStore(bucket / "none"))
    (check,) = examine(given)
    assert check.refused and "s3://bucket/images holds no file of this data set" in check.note
    monkeypatch.setattr(preflight_images, "open_store", unreachable)
    (check,) = examine(given)
    assert (check.state, check.refused) == (UNTRIED, False)


def test_the_known_shapes_are_those_of_the_files(tmp_path: Path) -> None:
    for size in (0, 12):
        config = DataPrepConfig(dataset_name="digits", image_size=size)
        dataset = read(config, tmp_path)
        sizes = Sizes(*(len(dataset.split(name)) for name in SPLITS))
        assert known_images(config) == Known(dataset.shape, len(dataset.classes), sizes)
    assert known_images(DataPrepConfig(channels=3, image_size=32)) == Known(
        (3, 32, 32), 10, Sizes(55_000, 5_000, 10_000)
    )
    assert {*KNOWN} == {"fashion_mnist", "cifar10", "cifar100", "digits"}


def test_the_quick_parameters_are_of_some_stage() -> None:
    known = {
        name for stage in ("train", "prune", "distill", "quantize") for name in STAGES[stage].config_class.parameters()
    }
    assert {*QUICK} <= known


def test_a_request_survives_its_file() -> None:
    given = request("lenet5", {"own": [step("prune", "prune", PruneConfig(), asked=True, asked_fields=["steps"])]})
    assert Request.from_json(given.to_json()) == given


def test_random_images_have_the_shape_and_classes_of_the_real_ones() -> None:
    dataset = random_dataset((3, 5, 7), 30)
    assert (dataset.shape, len(dataset.classes)) == ((3, 5, 7), 30)
