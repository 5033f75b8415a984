"""The evaluate stage: every figure of evaluation.json against another way to get it."""

import json
import math
from pathlib import Path

import onnxruntime
import pytest
import torch
from sklearn.metrics import confusion_matrix

from components.artifacts.dataset import load_dataset, save_dataset
from components.artifacts.model import load_model, save_model
from components.artifacts.packed import unpack_model
from components.artifacts.report import read_evaluation
from components.evaluate import stage
from components.evaluate.config import EvaluateConfig
from components.measuring.accuracy import predict
from components.quantize import stage as quantize_stage
from components.quantize.config import QuantizeConfig
from tests.quantize_makers import make_dataset, make_model

QUICK = {"latency_seconds": 0.02}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a teacher, a quantized model, and both evaluated."""
    place = tmp_path_factory.mktemp("evaluate")
    dataset = make_dataset(size=16)
    save_dataset(place / "dataset", dataset)
    save_model(place / "teacher", make_model("lenet5", dataset, width=0.5, steps=12))
    quantize_stage.run(
        QuantizeConfig(bits=4),
        dataset_dir=place / "dataset",
        model_dir=place / "teacher",
        quantized_dir=place / "model",
    )
    run(place, "teacher", "teacher-measured")
    run(place, "model", "measured", teacher="teacher")
    return place


def run(place: Path, model: str, output: str, *, teacher: str | None = None) -> dict[str, float]:
    metrics = stage.run(
        EvaluateConfig(name=output, **QUICK),
        dataset_dir=place / "dataset",
        model_dir=place / model,
        candidate_dir=place / output,
        teacher_dir=place / teacher if teacher else None,
    )
    (place / f"{output}.metrics").write_text(json.dumps(metrics))
    return metrics


def metrics_of(place: Path, output: str) -> dict[str, float]:
    return dict(json.loads((place / f"{output}.metrics").read_text()))


def test_accuracies_and_confusion(folder: Path) -> None:
    evaluation = read_evaluation(folder / "measured")
    dataset, model, teacher = (
        load_dataset(folder / "dataset"),
        *(load_model(folder / each) for each in ("model", "teacher")),
    )
    labels = dataset.test.labels
    predictions = predict(model.module, dataset.test, dataset).argmax(1)
    assert evaluation["test_accuracy"] == float((predictions == labels).double().mean())
    assert evaluation["confusion"] == confusion_matrix(labels, predictions, labels=range(10)).tolist()
    validation = predict(model.module, dataset.validation, dataset).argmax(1)
    assert evaluation["validation_accuracy"] == float((validation == dataset.validation.labels).double().mean())
    others = predict(teacher.module, dataset.test, dataset).argmax(1)
    assert evaluation["teacher_agreement"] == pytest.approx(float((predictions == others).double().mean()), abs=0.005)
    assert evaluation["onnx_agreement"] >= 0.999


def test_the_onnx_file_beside_it_gives_the_stated_accuracy(folder: Path) -> None:
    dataset = load_dataset(folder / "dataset")
    session = onnxruntime.InferenceSession(folder / "measured" / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": dataset.normalise(dataset.test.images).numpy()})
    found = float((torch.from_numpy(logits).argmax(1) == dataset.test.labels).double().mean())
    assert read_evaluation(folder / "measured")["onnx_test_accuracy"] == pytest.approx(found, abs=0.004)


def test_bytes_are_those_of_the_files(folder: Path) -> None:
    evaluation = read_evaluation(folder / "measured")
    parameters = sum(parameter.numel() for parameter in load_model(folder / "model").module.parameters())
    sizes = {name: (folder / "measured" / file).stat().st_size for name, file in FILES.items()}
    assert evaluation["bytes"] == {"fp32": 4 * parameters, **sizes}
    assert evaluation["parameters"] == parameters


FILES = {"stored": "weights.safetensors", "kz": "weights.kz", "onnx": "model.onnx"}


def test_the_candidate_is_the_model_and_so_is_its_kz_form(folder: Path) -> None:
    original = load_model(folder / "model")
    again = load_model(folder / "measured")
    unpacked = unpack_model((folder / "measured" / "weights.kz").read_bytes())
    state = original.module.state_dict()
    for other in (again, unpacked):
        assert other.quantized.keys() == original.quantized.keys()
        assert other.activations == original.activations
        found = other.module.state_dict()
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert again.lineage == original.lineage


def test_origin_and_layers(folder: Path) -> None:
    evaluation = read_evaluation(folder / "measured")
    assert evaluation["name"] == "measured"
    assert evaluation["steps"] == ["quantize to 4-bit weights and 8-bit activations (minmax)"]
    assert [layer["bits"] for layer in evaluation["layers"]] == [4] * 4
    assert evaluation["macs"] == sum(layer["macs"] for layer in evaluation["layers"])
    assert evaluation["dataset"]["splits"] == {"train": 400, "validation": 100, "test": 300}


def test_metrics_have_the_same_names_and_are_finite_for_every_candidate(folder: Path) -> None:
    first, second = metrics_of(folder, "teacher-measured"), metrics_of(folder, "measured")
    assert first.keys() == second.keys()
    assert all(math.isfinite(value) for value in (*first.values(), *second.values()))
    assert first["teacher_agreement"] == 1.0
    assert read_evaluation(folder / "teacher-measured")["teacher_agreement"] is None


def test_the_teacher_is_timed_in_turns(folder: Path) -> None:
    evaluation = json.loads((folder / "measured" / "evaluation.json").read_text())
    assert set(evaluation["teacher_latency_ms"]) == {"batch_1", "batch_64"}
    assert "teacher_latency_ms" not in json.loads((folder / "teacher-measured" / "evaluation.json").read_text())


def test_an_evaluated_teacher_is_not_exported_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = []
    export = stage.export_onnx
    monkeypatch.setattr(stage, "export_onnx", lambda model, dataset: exported.append(model) or export(model, dataset))
    metrics = run(folder, "model", str(tmp_path / "candidate"), teacher="teacher-measured")
    assert len(exported) == 1
    assert metrics["teacher_agreement"] == metrics_of(folder, "measured")["teacher_agreement"]


def test_a_model_of_other_images_is_refused(folder: Path, tmp_path: Path) -> None:
    save_dataset(tmp_path / "dataset", make_dataset(size=20, test=30))
    with pytest.raises(ValueError, match="the model's image_size must be the dataset's, 20, but got 16"):
        stage.run(
            EvaluateConfig(),
            dataset_dir=tmp_path / "dataset",
            model_dir=folder / "model",
            candidate_dir=tmp_path / "candidate",
        )
    assert not (tmp_path / "candidate").exists()


def test_an_exported_model_that_disagrees_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The export of another model stands in for a faulty exporter.
    other = make_model("lenet5", load_dataset(folder / "dataset"), width=0.5, steps=0)
    export = stage.export_onnx
    monkeypatch.setattr(stage, "export_onnx", lambda _model, dataset: export(other, dataset))
    with pytest.raises(ValueError, match="must agree with torch on at least 0.99 of the test images, but agrees on"):
        run(folder, "model", str(tmp_path / "candidate"))
    assert not (tmp_path / "candidate").exists()


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name must not be empty"):
        EvaluateConfig(name=" ")
