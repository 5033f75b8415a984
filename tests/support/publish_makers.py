"""Evaluated models with their reports, as the stages before publish leave them, with figures to choose."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from kondense.artifacts.model import Model, model_digest, save_model
from kondense.artifacts.report import PAGE, REPORT, evaluation_bytes, report_bytes
from kondense.codec.model_file import pack_model
from kondense.files import new_directory
from kondense.networks.build import NetworkSpec, build
from kondense.report.document import build_report

from tests.support.report_makers import make_evaluation, make_record

SUMMARY = ("name", "classes", "shape", "splits", "seed", "source")


class Made(NamedTuple):
    """What the publish stage reads, under the names of its arguments."""

    dataset_dir: Path
    chosen_dir: Path
    report_dir: Path


def make_publishable(
    directory: Path,
    dataset_dir: Path,
    *,
    seed: int = 0,
    test_accuracy: float = 0.9,
    teacher_accuracy: float = 0.905,
    onnx_accuracy: float | None = None,
    kz: int = 20_000,
    latency_ms: float = 0.05,
    cpu: str = "AMD EPYC 7B13",
) -> Made:
    """Write a chosen model and its report; ``seed`` makes the weights, the rest only figures.

    The model is a small lenet300, untrained.
    """
    summary = {key: json.loads((dataset_dir / "dataset.json").read_text())[key] for key in SUMMARY}
    figures = {"cpu": cpu, "test": teacher_accuracy, "onnx": teacher_accuracy, "kz": 1_600_000, "latency_ms": 0.1}
    teacher = _evaluation("teacher", summary, **figures)
    figures = {"cpu": cpu, "test": test_accuracy, "kz": kz, "latency_ms": latency_ms}
    figures["onnx"] = test_accuracy if onnx_accuracy is None else onnx_accuracy
    chosen = _evaluation("pruned", summary, **figures)
    _, size, _ = summary["shape"]
    arguments = {"classes": len(summary["classes"]), "channels": summary["shape"][0], "image_size": size, "width": 0.1}
    spec = NetworkSpec("lenet300", arguments)
    model = Model(build(spec, seed=seed), spec)
    files = {"evaluation.json": evaluation_bytes(chosen), "model.onnx": b"graph", "weights.kz": pack_model(model)}
    save_model(directory / "chosen", model, files)
    report = build_report(
        [teacher, chosen],
        ["00" * 32, model_digest(directory / "chosen")],
        title="",
        objective="bytes",
        max_validation_drop=0.5,
        record=make_record("report", "report bytes", []),
    )
    assert report["chosen"] == "pruned"
    with new_directory(directory / "report") as scratch:
        (scratch / REPORT).write_bytes(report_bytes(report))
        (scratch / PAGE).write_text("<!doctype html><title>report</title>")
    return Made(dataset_dir, directory / "chosen", directory / "report")


def _evaluation(
    name: str, summary: dict[str, Any], *, cpu: str, test: float, onnx: float, kz: int, latency_ms: float
) -> dict[str, Any]:
    figures = (0.9, 0.9, kz, latency_ms, 20 * latency_ms)
    evaluation = make_evaluation(name, classes=summary["classes"], figures=figures)
    measured = {"test_accuracy": test, "onnx_test_accuracy": onnx, "dataset": summary}
    return {**evaluation, **measured, "environment": {**evaluation["environment"], "cpu": cpu}}
