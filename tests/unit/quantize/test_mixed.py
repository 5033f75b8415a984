"""Bits by layer: measured, chosen, kept within the budget; and the scan that the report draws."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from kondense.artifacts.model import Model, load_model, save_model
from kondense.data.dataset import Dataset, save_dataset
from kondense.measuring.accuracy import predict
from kondense.quantize import stage
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.sensitivity import ALL_BITS, REPORTED_BITS, accuracy_by_bits, divergence_by_bits
from kondense.quantize.weight_only import quantize, quantize_weight

from tests.support.quantize_makers import make_context, make_dataset, make_model

UNIFORM = 7296  # bytes of the small LeNet's weights at 4 bits, with their scales


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(size=16)


@pytest.fixture(scope="module")
def lenet(dataset: Dataset) -> Model:
    return make_model("lenet5", dataset, width=0.5)


@pytest.fixture(scope="module")
def places(dataset: Dataset, lenet: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mixed")
    save_dataset(folder / "dataset", dataset)
    save_model(folder / "model", lenet)
    return {"dataset_dir": folder / "dataset", "model_dir": folder / "model"}


def weight_bytes(model: Model, scale_bytes: int) -> int:
    return sum(
        -(-tensor.integers.numel() * tensor.bits // 8) + scale_bytes * len(tensor.scale)
        for tensor in model.quantized.values()
    )


def test_the_choice_is_the_best_of_all(dataset: Dataset, lenet: Model, places: dict[str, Path], tmp_path: Path) -> None:
    # A little more than 4 bits everywhere takes.
    config = QuantizeConfig(method="mixed", budget_bytes=UNIFORM + 400, calibration_images=100)
    stage.run(config, **places, quantized_dir=tmp_path / "mixed")
    quantized = load_model(tmp_path / "mixed")
    details = quantized.lineage[-1]["details"]
    costs = divergence_by_bits(lenet.module, make_context(config, dataset).calibration_batches(), "channel")
    counts = {name: lenet.module.get_submodule(name).weight for name in costs}

    def total(bits: tuple[int, ...]) -> int:
        return sum(
            -(-weight.numel() * count // 8) + 2 * len(weight)
            for weight, count in zip(counts.values(), bits, strict=True)
        )

    def cost(bits: tuple[int, ...]) -> float:
        return sum(row[count - 2] for row, count in zip(costs.values(), bits, strict=True))

    assert total((4, 4, 4, 4)) == UNIFORM
    best = min((bits for bits in itertools.product(ALL_BITS, repeat=4) if total(bits) <= UNIFORM + 400), key=cost)
    assert tuple(details["bits"].values()) == best
    assert details["budget_bytes"] == UNIFORM + 400
    assert details["weight_bytes"] == weight_bytes(quantized, 2) == total(best) <= UNIFORM + 400
    assert len(set(best)) > 1
    assert {f"{name}.weight": bits for name, bits in details["bits"].items()} == {
        name: tensor.bits for name, tensor in quantized.quantized.items()
    }


@pytest.mark.parametrize("fine_tune", [False, True])
def test_integer_arithmetic_within_a_given_budget(fine_tune: bool, places: dict[str, Path], tmp_path: Path) -> None:
    config = QuantizeConfig(
        method="mixed", arithmetic="integer", budget_bytes=20_000, fine_tune=fine_tune, epochs=1, batch_size=50
    )
    stage.run(config, **places, quantized_dir=tmp_path / "mixed")
    quantized = load_model(tmp_path / "mixed")
    assert set(quantized.activations) == {"conv1", "conv2", "fc1", "fc2"}
    assert weight_bytes(quantized, 4) <= 20_000
    assert bool(quantized.lineage[-1]["curves"]) == fine_tune


def test_a_budget_that_cannot_be_met_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    config = QuantizeConfig(method="mixed", budget_bytes=100)
    with pytest.raises(
        ValueError, match=r"budget_bytes must be at least \d+, the size at the fewest bits, but got 100"
    ):
        stage.run(config, **places, quantized_dir=tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_divergence_by_hand(dataset: Dataset, lenet: Model) -> None:
    images = dataset.normalise(dataset.train.images[:60])
    rows = divergence_by_bits(lenet.module, images.split(25), "channel", bits=(3,))
    assert list(rows) == ["conv1", "conv2", "fc1", "fc2"]
    p = F.softmax(lenet.module(images).double(), 1)
    weight = lenet.module.fc1.weight
    changed = {"fc1.weight": quantize_weight(weight, bits=3, granularity="channel").dequantize()}
    q = F.softmax(torch.func.functional_call(lenet.module, changed, (images,)).double(), 1)
    expected = (p * (p / q).log()).sum(1).mean()
    assert rows["fc1"][0] == pytest.approx(float(expected), rel=1e-4)


def test_the_scan_for_the_report(dataset: Dataset, lenet: Model, places: dict[str, Path], tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in lenet.module.state_dict().items()}
    found = accuracy_by_bits(lenet.module, dataset, "channel")
    assert all(torch.equal(tensor, before[name]) for name, tensor in lenet.module.state_dict().items())
    assert found["of"] == "bits"
    assert [row["layer"] for row in found["rows"]] == ["conv1", "conv2", "fc1", "fc2"]
    for row in found["rows"]:
        assert [bits for bits, _ in row["points"]] == list(REPORTED_BITS)
    only = quantize(lenet, bits={"conv1": 8, "conv2": 2, "fc1": 8, "fc2": 8})
    state = {name: before[name] for name in before} | {"conv2.weight": only.quantized["conv2.weight"].dequantize()}
    module = make_model("lenet5", dataset, width=0.5, steps=0).module
    module.load_state_dict(state)
    predictions_N = predict(module, dataset.validation, dataset).argmax(1)
    expected = float((predictions_N == dataset.validation.labels).double().mean())
    assert found["rows"][1]["points"][0] == [2, expected]
    stage.run(QuantizeConfig(sensitivity=True), **places, quantized_dir=tmp_path / "scanned")
    assert load_model(tmp_path / "scanned").lineage[-1]["details"]["sensitivity"] == found
