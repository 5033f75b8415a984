"""What artifacts say of themselves: finite numbers and texts under documented names."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kondense.artifacts.comparison import COMPARED, compared
from kondense.artifacts.metadata import (
    KEYS,
    REQUIRED,
    metadata_of,
)
from kondense.artifacts.report import models, read_report
from kondense.report.config import ReportConfig
from kondense.report.stage import run

from tests.support.report_makers import make_evaluations, write_candidates


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The eight models of a run, measured, the teacher's first."""
    return write_candidates(tmp_path_factory.mktemp("candidates"), make_evaluations())


def check(found: Mapping[str, Any], kind: str) -> None:
    assert {*REQUIRED[kind], "display_name"} <= {*found} <= {*KEYS}
    for name, value in found.items():
        assert type(value) in (int, float, str), name
        assert isinstance(value, str) or math.isfinite(value), name
    assert found["display_name"]


def write(directory: Path, file: str, **content: Any) -> None:
    directory.mkdir(exist_ok=True)
    (directory / file).write_text(json.dumps({"format_version": 1, **content}))


def lineage(*records: tuple[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    return [{"stage": stage, "summary": f"{stage} so", "metrics": dict(metrics)} for stage, metrics in records]


def write_model(directory: Path, records: list[dict[str, Any]]) -> None:
    write(directory, "model.json", network={"name": "lenet5", "arguments": {}}, lineage=records)
    (directory / "weights.safetensors").write_bytes(b"x" * 1000)


def test_the_names_are_documented_and_required_ones_are_among_them() -> None:
    assert all(KEYS.values())
    assert {name for names in REQUIRED.values() for name in names} <= {*KEYS}


def test_a_model_that_was_measured_has_its_figures(candidates: list[Path]) -> None:
    found = metadata_of(candidates[-1], title="{candidate} (candidate)")
    check(found, "measured model")
    assert found["display_name"] == "sparse-packed (candidate)"
    assert (found["dataset"], found["bytes"], found["latency_ms"]) == ("fashion-mnist", 22_411, 0.1174)


def test_a_model_that_was_not_measured_says_what_its_lineage_knows(tmp_path: Path) -> None:
    write(tmp_path, "dataset.json", name="digits")
    trained = ("train", {"validation_accuracy": 0.9, "parameters": 400.0, "train_loss": None, "secret": 1.0})
    write_model(tmp_path, lineage(trained))
    found = metadata_of(tmp_path, title="teacher {network}", dataset_dir=tmp_path)
    check(found, "model")
    assert found["display_name"] == "teacher lenet5"
    assert (found["dataset"], found["bits"], found["sparsity"], found["bytes"]) == ("digits", 32, 0.0, 1000)
    assert "train_loss" not in found and "secret" not in found

    channels = ("prune", {"sparsity": 0.5, "sparsity_before": 0.0, "parameters": 200.0})
    zeros = ("prune", {"sparsity": 0.9, "sparsity_before": 0.0, "parameters": 200.0})
    more = ("prune", {"sparsity": 0.95, "sparsity_before": 0.9, "parameters": 200.0})
    write_model(tmp_path, lineage(trained, channels, zeros, more, ("quantize", {"bits": 4.5})))
    found = metadata_of(tmp_path, title="{method}", dataset_dir=tmp_path)
    assert found["display_name"] == "quantize so"
    assert (found["bits"], found["parameters"]) == (4.5, 200.0)
    assert found["sparsity"] == pytest.approx(1 - 0.5 * 0.05)


def test_a_report_and_its_figures_are_the_chosen_models(candidates: list[Path], tmp_path: Path) -> None:
    logged = run(
        ReportConfig(objective="bytes"),
        candidate_dirs=candidates,
        report_dir=tmp_path / "report",
        chosen_dir=tmp_path / "chosen",
    )
    found = metadata_of(tmp_path / "report")
    check(found, "report")
    chosen = metadata_of(tmp_path / "chosen", title="chosen: {candidate}")
    assert (found["candidate"], chosen["display_name"]) == ("sparse-packed", "chosen: sparse-packed")
    assert {*logged} == {*COMPARED}
    assert logged["bytes"] == chosen["bytes"] == found["bytes"]
    assert logged["accuracy_percent"] == pytest.approx(100 * chosen["test_accuracy"])


def test_figures_are_few_and_the_same_as_the_reports(candidates: list[Path], tmp_path: Path) -> None:
    assert len(COMPARED) <= 8
    assert sorted(COMPARED)[:4] == [*COMPARED][:4]
    run(ReportConfig(), candidate_dirs=candidates, report_dir=tmp_path / "report", chosen_dir=tmp_path / "chosen")
    report = read_report(tmp_path / "report")
    for model in models(report):
        found = compared(model, report["teacher"])
        difference = model["difference"]
        assert found["accuracy_points_lost"] == pytest.approx(-100 * difference["test_accuracy"])
        assert found["bytes_times_smaller"] == pytest.approx(difference["bytes_ratio"])
        assert found["latency_times_faster"] == pytest.approx(difference["latency_ratio"])
        assert all(math.isfinite(value) for value in found.values())
        assert {*compared(model, None)} == {"accuracy_percent", "bytes", "latency_ms", "parameters"}


def test_a_data_set(tmp_path: Path) -> None:
    splits = {"train": 10, "validation": 2, "test": 3}
    write(tmp_path, "dataset.json", name="digits", splits=splits, classes=["0", "1"], shape=[1, 8, 8])
    found = metadata_of(tmp_path)
    check(found, "dataset")
    assert (found["shape"], found["classes"], found["train_images"]) == ("1x8x8", 2, 10)


@pytest.mark.parametrize(("published", "title"), [(True, "published net v1"), (False, "not published: net")])
def test_a_receipt(tmp_path: Path, published: bool, title: str) -> None:
    receipt = {"published": published, "model_name": "net", "version": "v1", "uri": "minio://k/net", "reason": "so"}
    write(tmp_path, "receipt.json", **receipt)
    accuracies = {"test_accuracy": 0.9, "onnx_test_accuracy": 0.9, "teacher_test_accuracy": 0.91}
    times = {"batch_1": {"median": 0.1}}
    named = {"network": "lenet5", "dataset": "digits", "candidate": "pruned"}
    write(tmp_path, "version.json", bytes={"kz": 100}, latency_ms=times, **named, **accuracies)
    found = metadata_of(tmp_path)
    check(found, "receipt")
    assert (found["display_name"], found["published"]) == (title, int(published))


def test_a_champion_that_is_not_there_has_no_accuracy(tmp_path: Path) -> None:
    verdict = {"model_name": "net", "version": "", "challenge": True, "reason": "none yet", "test_accuracy": None}
    write(tmp_path, "champion.json", **verdict)
    found = metadata_of(tmp_path)
    check(found, "champion")
    assert "champion_test_accuracy" not in found and found["challenge"] == 1


def test_a_search(tmp_path: Path) -> None:
    trials = [{"name": "a", "value": 0.9}, {"name": "b", "value": None}, {"name": "c", "value": None}]
    write(
        tmp_path,
        "results.json",
        experiment="e",
        algorithm="bohb",
        objective={"metric": "score"},
        reason="enough",
        best={"name": "a", "value": 0.9},
        trials=trials,
        finished=[{"name": "a"}, {"name": "b"}],
    )
    found = metadata_of(tmp_path)
    check(found, "search")
    assert (found["trials"], found["trials_without_result"], found["best_value"]) == (2, 1, 0.9)
    assert found["display_name"] == "search: 2 trials by bohb"
