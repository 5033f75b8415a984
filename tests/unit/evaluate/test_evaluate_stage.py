"""The evaluate stage: every figure of evaluation.json against another way to get it."""

import gc
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from kondense.artifacts.model import load_model, save_model
from kondense.artifacts.report import read_evaluation
from kondense.codec.model_file import unpack_model
from kondense.data.dataset import load_dataset, save_dataset
from kondense.evaluate import exports, program, stage, timings
from kondense.evaluate.config import EvaluateConfig
from kondense.export.onnx import read_metadata
from kondense.files import ArtifactError
from kondense.measuring.accuracy import predict
from kondense.measuring.intervals import Interval
from kondense.measuring.kernels import INTEGER_LAYERS
from kondense.measuring.robustness import measure_robustness
from kondense.quantize import stage as quantize_stage
from kondense.quantize.config import QuantizeConfig
from sklearn.metrics import confusion_matrix

from tests.support.quantize_makers import make_dataset, make_model

# Which arithmetic is faster is noise in so little time.
QUICK = {"latency_seconds": 0.02, "further_latency_seconds": 0.0, "arithmetic": "integer", "robustness_images": 60}


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


def run(place: Path, model: str, output: str, *, teacher: str | None = None, **options: Any) -> dict[str, float]:
    metrics = stage.run(
        EvaluateConfig(name=output, **{**QUICK, **options}),
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
    export = exports.export_onnx
    monkeypatch.setattr(
        exports, "export_onnx", lambda model, dataset, **rest: exported.append(model) or export(model, dataset, **rest)
    )
    metrics = run(folder, "model", str(tmp_path / "candidate"), teacher="teacher-measured")
    assert len(exported) == 1
    assert metrics["teacher_agreement"] == metrics_of(folder, "measured")["teacher_agreement"]


def test_float_arithmetic_keeps_the_integers_and_agrees_with_torch(folder: Path) -> None:
    run(folder, "model", "in-float", teacher="teacher", arithmetic="float")
    evaluation, model = read_evaluation(folder / "in-float"), load_model(folder / "in-float")
    assert evaluation["arithmetic"] == {"chosen": "float", "reason": "as requested", "integer_speedup": None}
    assert evaluation["steps"][-1] == "compute in float"
    assert not model.activations
    assert model.quantized.keys() == load_model(folder / "model").quantized.keys()
    assert evaluation["onnx_agreement"] == 1.0
    assert not set(INTEGER_LAYERS) & set(evaluation["kernels"])
    assert set(INTEGER_LAYERS) & set(read_evaluation(folder / "measured")["kernels"])
    assert evaluation["runtimes"] == read_metadata((folder / "in-float" / "model.onnx").read_bytes())["runtimes"]


@pytest.mark.parametrize(
    ("factor", "chosen"), [(0.5, "integer"), (1.0, "integer"), (1.02, "integer"), (1.2, "float"), (3.0, "float")]
)
def test_the_arithmetic_is_chosen_by_what_was_measured(factor: float, chosen: str) -> None:
    """``factor``: how many times slower integers are."""
    interval = Interval(1 / factor, 0.99 / factor, 1.01 / factor)
    found = exports.choose_arithmetic({}, {"batch_1": interval, "batch_64": interval}, requested="auto")
    assert found["chosen"] == chosen
    assert found["reason"].startswith("int8 is slower than float for this network") == (chosen == "float")
    assert f"{1 / factor:.2f}× ({0.99 / factor:.2f} to {1.01 / factor:.2f}) the speed" in found["reason"]


def test_noise_does_not_turn_integers_down() -> None:
    noisy = Interval(0.7, 0.4, 1.4)
    assert exports.choose_arithmetic({}, {"batch_1": noisy, "batch_64": noisy}, requested="auto")["chosen"] == "integer"


def test_every_way_to_run_is_timed_against_the_teacher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "usable_cores", lambda: 2)
    run(folder, "model", "timed", teacher="teacher", further_latency_seconds=0.01, arithmetic="auto")
    evaluation = read_evaluation(folder / "timed")
    ways = [(row["runtime"], row["device"], row["threads"], row["batch"]) for row in evaluation["timings"]]
    cpu = [("onnxruntime", "cpu", 1), ("onnxruntime", "cpu", 2), ("torch", "cpu", 1), ("torch", "cpu", 2)]
    assert sorted(way for way in ways if way[1] == "cpu") == sorted((*way, batch) for way in cpu for batch in (1, 64))
    for row in evaluation["timings"]:
        assert row["candidate"]["low"] <= row["candidate"]["median"] <= row["candidate"]["high"]
        assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
        assert row["ratio"]["value"] == pytest.approx(row["teacher"]["median"] / row["candidate"]["median"])
    assert evaluation["latency_ms"]["batch_64"] == evaluation["timings"][1]["candidate"]
    assert set(evaluation["arithmetic"]["integer_speedup"]) == {"batch_1", "batch_64"}


def test_ways_to_run_name_gpus_where_there_are_some() -> None:
    ways = timings.further_backends(1, ["CUDAExecutionProvider"], cuda=True)
    assert [(way.runtime, way.device, way.threads) for way in ways[: len(ways) // 2]] == [
        ("torch", "cpu", 1),
        ("onnxruntime", "CUDAExecutionProvider", 0),
        ("torch", "cuda", 0),
    ]


def test_pixels_as_input_give_the_same_figures(folder: Path) -> None:
    run(folder, "model", "pixels", teacher="teacher-measured", uint8_input=True)
    pixels, floats = read_evaluation(folder / "pixels"), read_evaluation(folder / "measured")
    assert read_metadata((folder / "pixels" / "model.onnx").read_bytes())["input"] == "uint8"
    assert pixels["onnx_agreement"] >= 0.999
    assert pixels["test_accuracy"] == floats["test_accuracy"]
    assert pixels["robustness"] == floats["robustness"]
    assert pixels["teacher_agreement"] == floats["teacher_agreement"]


def test_the_program_is_kept_where_it_gives_the_very_same(folder: Path) -> None:
    run(folder, "model", "with-program", program=True)
    evaluation = read_evaluation(folder / "with-program")
    content = (folder / "with-program" / "program.pt2").read_bytes()
    assert evaluation["program"] == {"bytes": len(content), "lossless": True, "largest_difference": 0.0}
    with zipfile.ZipFile(folder / "with-program" / "program.pt2") as archive:
        for name in archive.namelist():
            head = archive.read(name)[:2]
            assert head != b"PK" and not head.startswith(b"\x80"), f"{name} looks like a pickle"


def test_a_program_that_differs_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "run_in_fresh_process", lambda _content, images: torch.zeros(len(images), 10))
    run(folder, "model", "lossy", program=True)
    found = read_evaluation(folder / "lossy")["program"]
    assert not found["lossless"] and found["largest_difference"] > 0
    assert not (folder / "lossy" / "program.pt2").exists()


def test_a_program_that_does_not_load_is_an_error() -> None:
    with pytest.raises(ArtifactError, match="the torch.export program failed in a fresh process: "):
        program.run_in_fresh_process(b"no program", torch.zeros(1, 1, 16, 16))


def test_robustness_is_that_of_the_same_spoiled_images(folder: Path) -> None:
    teacher, model = (read_evaluation(folder / name)["robustness"] for name in ("teacher-measured", "measured"))
    assert teacher["images"] == model["images"] == 60
    dataset = load_dataset(folder / "dataset")
    again = measure_robustness(
        lambda images: load_model(folder / "teacher").module(dataset.normalise(images)),
        dataset.test,
        images=60,
        seed=0,
    )
    assert again["corruptions"].keys() == teacher["corruptions"].keys() == {"noise", "blur", "contrast"}
    for kind, found in again["corruptions"].items():
        assert found["accuracy"] == pytest.approx(teacher["corruptions"][kind]["accuracy"], abs=0.02)


def test_a_model_of_other_images_is_refused(folder: Path, tmp_path: Path) -> None:
    save_dataset(tmp_path / "dataset", make_dataset(size=20, test=30))
    with pytest.raises(ValueError, match="the model must take images of 1x20x20, but"):
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
    export = exports.export_onnx
    monkeypatch.setattr(exports, "export_onnx", lambda _model, dataset, **rest: export(other, dataset, **rest))
    with pytest.raises(ValueError, match="must agree with torch on at least 0.99 of the test images, but agrees on"):
        run(folder, "model", str(tmp_path / "candidate"))
    assert not (tmp_path / "candidate").exists()


def test_memory_is_measured_when_no_session_holds_any(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sessions of the timings keep the memory of a batch of 64, several hundred megabytes at 224 pixels."""
    alive = []

    def measured(onnx: bytes, *, batch: int, run_s: float) -> int:
        alive.append([each for each in gc.get_objects() if isinstance(each, onnxruntime.InferenceSession)])
        return len(onnx)

    monkeypatch.setattr(stage, "peak_memory_bytes", measured)
    metrics = run(folder, "model", "lean", teacher="teacher", robustness_images=0)
    assert alive == [[]]
    assert metrics["peak_memory_bytes"] == read_evaluation(folder / "lean")["bytes"]["onnx"]


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name must not be empty"):
        EvaluateConfig(name=" ")
