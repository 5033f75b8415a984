"""The metadata of an artifact on the pages of Kubeflow Pipelines. Stdlib only.

KFP keeps metadata in ML Metadata, which takes numbers and texts as they are; a null ends the step, a list comes back
wrapped and a bool as a number. So every value here is a finite number or a text, and every key is one of ``KEYS`` and
has one meaning on all artifacts. Lists, lineage and matrices show ``display_name``.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kondense.artifacts.failed import FAILED
from kondense.artifacts.identity import MODEL_FORMAT
from kondense.artifacts.report import EVALUATION, Evaluation, models, read_evaluation, read_report
from kondense.failure import shortened
from kondense.files import read_json, sha256

Value = int | float | str

FRAMEWORK = "pytorch"
FLOAT_BITS = 32
DATASET_FORMATS = (1, 2)  # of dataset.json
FORMAT = 1  # of champion.json, receipt.json, version.json and results.json

KEYS: Mapping[str, str] = {
    "display_name": "name of the artifact on the pages",
    # Identity.
    "framework": "library that loads the model",
    "network": "name of the network",
    "dataset": "name of the data set",
    "digest": "SHA-256 of model.json or dataset.json, which hold the digests of all other files",
    "method": "the step that made the model, in words",
    "candidate": "the candidate's name",
    "model_name": "the name that the model is published under",
    "version": "the published version's id",
    "uri": "address of the published version",
    "reason": "why it was chosen, published or challenged, why the search ended, or why there is no model",
    # Data sets.
    "train_images": "images to train on",
    "validation_images": "images of the validation split",
    "test_images": "images of the test split",
    "unreadable_images": "left out because they cannot be read",
    "duplicate_images": "left out because another split has them",
    "classes": "number of classes",
    "shape": "channels x height x width of an image",
    # Accuracy: fractions of the images.
    "test_accuracy": "on the test split",
    "validation_accuracy": "on the validation split",
    "validation_accuracy_before": "of the step's input",
    "validation_accuracy_untuned": "right after pruning",
    "validation_accuracy_teacher": "of the teacher",
    "teacher_agreement": "fraction of images with the teacher's class",
    "teacher_test_accuracy": "of the teacher, on the test split",
    "champion_test_accuracy": "of the published champion, on the same test split",
    "onnx_test_accuracy": "of model.onnx in onnxruntime",
    "onnx_agreement": "fraction of test images with the same class in torch and onnxruntime",
    "robust_accuracy": "on corrupted test images, the mean over kinds and strengths",
    "train_loss": "of the last epoch",
    # Size and work.
    "parameters": "number of parameters",
    "parameters_before": "of the step's input",
    "parameters_teacher": "of the teacher",
    "nonzero_parameters": "parameters that are not zero",
    "sparsity": "fraction of the network's weights that pruning removed or set to zero",
    "sparsity_before": "fraction of the weights that were zero before the step",
    "macs": "multiply-accumulates of one image",
    "macs_before": "of the step's input",
    "macs_teacher": "of the teacher",
    "bits": "mean bits of a parameter; 32 where it is float",
    "float_layers": "float layers of a quantized model",
    "bytes": "of weights.kz if the model was measured, else of weights.safetensors",
    "bytes_stored": "of weights.safetensors",
    "bytes_onnx": "of model.onnx",
    "bytes_fp32": "of the parameters as dense float32",
    "bits_per_weight": "bits of weights.kz per parameter",
    # Speed.
    "latency_ms": "median at batch 1 in onnxruntime, milliseconds",
    "latency_batch_64_ms": "median at batch 64 in onnxruntime, milliseconds",
    "throughput_images_per_s": "images per second at batch 64",
    "peak_memory_bytes": "of a process that runs model.onnx",
    # Reports, publications, champions.
    "objective": "objective of the choice or of the search",
    "max_accuracy_drop": "the most that validation accuracy could be below the teacher's, a fraction",
    "candidates": "compared beside the teacher",
    "candidates_within_bound": "of these, those within max_accuracy_drop",
    "candidates_failed": "those that could not be made or measured",
    "published": "1 if the model is published, else 0",
    "challenge": "1 if a challenger is to be made, else 0",
    # Searches.
    "experiment": "name of the Katib Experiment",
    "algorithm": "search algorithm",
    "trials": "trials that ended",
    "trials_without_result": "trials that ended without a value",
    "best_trial": "its name",
    "best_value": "its value of the objective",
    "page": "address of the Experiment in Katib's pages",
}

MODEL_KEYS = ("framework", "network", "dataset", "method", "digest", "parameters", "bytes", "bits", "sparsity")
MEASURED_KEYS = ("candidate", "test_accuracy", "latency_ms")
# Metadata that each kind of artifact has at least, besides display_name.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "dataset": ("dataset", "train_images", "validation_images", "test_images", "classes", "shape", "digest"),
    "model": MODEL_KEYS,
    "measured model": (*MODEL_KEYS, *MEASURED_KEYS),
    "report": ("network", "dataset", "candidate", "objective", "candidates", "test_accuracy", "bytes", "latency_ms"),
    "receipt": ("published", "model_name", "reason", "test_accuracy", "bytes"),
    "champion": ("model_name", "challenge", "reason"),
    "search": ("experiment", "algorithm", "objective", "trials", "trials_without_result", "best_trial", "best_value"),
}


def metadata_of(directory: Path, *, title: str = "{method}", dataset_dir: Path | None = None) -> dict[str, Value]:
    """Return the metadata of an artifact; empty for a kind that is not one of Kondense's.

    Args:
        directory: the artifact.
        title: display name of a model, in which {network}, {method} and {candidate} are the model's own.
        dataset_dir: the Dataset artifact that a model was made with.
    """
    if (directory / "model.json").is_file():
        return _kept(_model(directory, title, dataset_dir))
    for name, read in KINDS.items():
        if (directory / name).is_file():
            return _kept(read(directory))
    return {}


def _dataset(directory: Path) -> dict[str, Any]:
    content = read_json(directory / "dataset.json", format_version=DATASET_FORMATS)
    return {
        "display_name": content["name"],
        "dataset": content["name"],
        **{f"{split}_images": count for split, count in content["splits"].items()},
        **{f"{reason}_images": count for reason, count in content.get("skipped", {}).items()},
        "classes": len(content["classes"]),
        "shape": "x".join(map(str, content["shape"])),
        "digest": sha256(directory / "dataset.json"),
    }


def _model(directory: Path, title: str, dataset_dir: Path | None) -> dict[str, Any]:
    description = read_json(directory / "model.json", format_version=MODEL_FORMAT)
    lineage = description["lineage"]
    values: dict[str, Any] = dict(lineage[-1]["metrics"]) if lineage else {}
    values |= {
        "framework": FRAMEWORK,
        "network": description["network"]["name"],
        "method": lineage[-1]["summary"] if lineage else "as given",
        "digest": sha256(directory / "model.json"),
        "parameters": _last(lineage, "parameters"),
        "bytes": (directory / "weights.safetensors").stat().st_size,
        "bits": _last(lineage, "bits") or FLOAT_BITS,
        "sparsity": _sparsity(lineage),
    }
    if dataset_dir:
        values["dataset"] = read_json(dataset_dir / "dataset.json", format_version=DATASET_FORMATS)["name"]
    if (directory / EVALUATION).is_file():
        values |= _measured(read_evaluation(directory))
    return {"display_name": title.format(**{"candidate": "", **values}), **values}


def _report(directory: Path) -> dict[str, Any]:
    report = read_report(directory)
    chosen = next(model for model in models(report) if model["name"] == report["chosen"])
    return {
        "display_name": f"report: {report['title']}",
        "network": report["network"],
        "dataset": report["dataset"]["name"],
        "candidate": report["chosen"],
        "reason": report["reason"],
        "objective": report["objective"],
        "max_accuracy_drop": report["max_accuracy_drop"],
        "candidates": len(report["candidates"]),
        "candidates_failed": len(report.get("failed", ())),
        "candidates_within_bound": sum(model["within_bound"] for model in report["candidates"]),
        "teacher_test_accuracy": report["teacher"]["test_accuracy"],
        "test_accuracy": chosen["test_accuracy"],
        "bytes": chosen["bytes"]["kz"],
        "latency_ms": chosen["latency_ms"]["batch_1"]["median"],
    }


def _receipt(directory: Path) -> dict[str, Any]:
    receipt = read_json(directory / "receipt.json", format_version=FORMAT)
    record = read_json(directory / "version.json", format_version=FORMAT)
    name = receipt["model_name"]
    title = f"published {name} {receipt['version']}" if receipt["published"] else f"not published: {name}"
    return {
        "display_name": title,
        "published": int(receipt["published"]),
        "model_name": name,
        "version": receipt["version"],
        "uri": receipt["uri"],
        "reason": receipt["reason"],
        "network": record["network"],
        "dataset": record["dataset"],
        "candidate": record["candidate"],
        "test_accuracy": record["test_accuracy"],
        "onnx_test_accuracy": record["onnx_test_accuracy"],
        "teacher_test_accuracy": record["teacher_test_accuracy"],
        "bytes": record["bytes"]["kz"],
        "latency_ms": record["latency_ms"]["batch_1"]["median"],
    }


def _champion(directory: Path) -> dict[str, Any]:
    verdict = read_json(directory / "champion.json", format_version=FORMAT)
    name, version = verdict["model_name"], verdict["version"]
    return {
        "display_name": f"champion {name} {version}" if version else f"no champion of {name} yet",
        "model_name": name,
        "version": version,
        "challenge": int(verdict["challenge"]),
        "reason": verdict["reason"],
        "champion_test_accuracy": verdict["test_accuracy"],
    }


def _search(directory: Path) -> dict[str, Any]:
    results = read_json(directory / "results.json", format_version=FORMAT)
    best, finished = results["best"] or {}, len(results["finished"])
    trials = {trial["name"]: trial for trial in results["trials"]}
    return {
        "display_name": f"search: {finished} trials by {results['algorithm']}",
        "experiment": results["experiment"],
        "page": results.get("page", ""),
        "algorithm": results["algorithm"],
        "objective": results["objective"]["metric"],
        "reason": results["reason"],
        "trials": finished,
        "trials_without_result": sum(trials[trial["name"]]["value"] is None for trial in results["finished"]),
        "best_trial": best.get("name"),
        "best_value": best.get("value"),
    }


def failed_title(step: str, reason: str) -> str:
    """Return the display name of what stands in the place of a model that could not be made."""
    return f"FAILED: {step}: {shortened(reason)}"


def _failed(directory: Path) -> dict[str, Any]:
    failed = read_json(directory / FAILED, format_version=FORMAT)
    return {"display_name": failed_title(failed["step"], failed["reason"]), "reason": failed["reason"]}


KINDS: Mapping[str, Callable[[Path], dict[str, Any]]] = {  # by a file that only this kind of artifact has
    FAILED: _failed,
    "dataset.json": _dataset,
    "report.json": _report,
    "receipt.json": _receipt,
    "champion.json": _champion,
    "results.json": _search,
}


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    """Return the measurements of a model."""
    sizes, times = evaluation["bytes"], evaluation["latency_ms"]
    robustness = evaluation.get("robustness")
    return {
        "candidate": evaluation["name"],
        "dataset": evaluation["dataset"]["name"],
        "test_accuracy": evaluation["test_accuracy"],
        "validation_accuracy": evaluation["validation_accuracy"],
        "onnx_test_accuracy": evaluation["onnx_test_accuracy"],
        "onnx_agreement": evaluation["onnx_agreement"],
        "teacher_agreement": evaluation["teacher_agreement"],
        "robust_accuracy": robustness["mean"] if robustness else None,
        "parameters": evaluation["parameters"],
        "nonzero_parameters": evaluation["nonzero_parameters"],
        "macs": evaluation["macs"],
        "bytes": sizes["kz"],
        "bytes_stored": sizes["stored"],
        "bytes_onnx": sizes["onnx"],
        "bytes_fp32": sizes["fp32"],
        "bits_per_weight": evaluation.get("bits_per_weight"),
        "latency_ms": times["batch_1"]["median"],
        "latency_batch_64_ms": times["batch_64"]["median"],
        "throughput_images_per_s": evaluation["throughput_images_per_s"],
        "peak_memory_bytes": evaluation["peak_memory_bytes"],
    }


def _last(lineage: list[dict[str, Any]], name: str) -> float | None:
    """Return a metric of the last step that measured it."""
    return next((record["metrics"][name] for record in reversed(lineage) if name in record["metrics"]), None)


def _sparsity(lineage: list[dict[str, Any]]) -> float:
    """Return the fraction of the first network's weights that all prune steps together removed or set to zero."""
    kept = 1.0
    for metrics in (record["metrics"] for record in lineage if record["stage"] == "prune"):
        # Each step states zeros relative to its input, some of whose weights were zero already.
        before = 1.0 - metrics.get("sparsity_before", 0.0)
        kept *= (1.0 - metrics.get("sparsity", 0.0)) / before if before else 0.0
    return 1.0 - kept


def _kept(values: Mapping[str, Any]) -> dict[str, Value]:
    """Return the values that are finite numbers or texts, of known keys."""
    return {
        name: value
        for name, value in values.items()
        if name in KEYS
        and not isinstance(value, bool)
        and (isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value)))
    }
