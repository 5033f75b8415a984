"""What an artifact says of itself in the pages of Kubeflow Pipelines: one function per kind. Stdlib only.

KFP keeps metadata in ML Metadata, which takes numbers and texts as they are; a null ends the step, a list comes back
wrapped and a bool as a number. So every value here is a finite number or a text, and every key is one of ``KEYS`` and
means the same on every artifact. ``display_name`` is what lists, lineage and matrices call the artifact.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kondense.artifacts.identity import MODEL_FORMAT
from kondense.artifacts.report import EVALUATION, Evaluation, models, read_evaluation, read_report
from kondense.files import read_json, sha256

Value = int | float | str

FRAMEWORK = "pytorch"
FLOAT_BITS = 32
FORMAT = 1  # of dataset.json, champion.json, receipt.json, version.json and results.json

KEYS: Mapping[str, str] = {
    "display_name": "what the pages call the artifact",
    # What it is.
    "framework": "what loads the model",
    "network": "name of the network",
    "dataset": "name of the data set",
    "digest": "SHA-256 of model.json or dataset.json, which hold the digests of all other files",
    "method": "the step that made the model, in words",
    "candidate": "the candidate's name",
    "model_name": "the name that the model is published under",
    "version": "the published version's id",
    "uri": "where the published version lies",
    "reason": "why it was chosen, published or challenged, or why the search ended",
    # Data sets.
    "train_images": "images to train on",
    "validation_images": "images of the validation split",
    "test_images": "images of the test split",
    "classes": "number of classes",
    "shape": "channels x height x width of an image",
    # Accuracy: fractions of the images.
    "test_accuracy": "on the test split",
    "validation_accuracy": "on the validation split",
    "validation_accuracy_before": "of the model that the step was given",
    "validation_accuracy_untuned": "right after pruning",
    "validation_accuracy_teacher": "of the teacher",
    "teacher_agreement": "images that get the teacher's class",
    "teacher_test_accuracy": "of the teacher, on the test split",
    "champion_test_accuracy": "of the published champion, on the same test split",
    "onnx_test_accuracy": "of model.onnx in onnxruntime",
    "onnx_agreement": "test images that get the same class from torch and onnxruntime",
    "robust_accuracy": "on spoiled test images, the mean over kinds and strengths",
    "train_loss": "of the last epoch",
    # Size and work.
    "parameters": "number of parameters",
    "parameters_before": "of the model that the step was given",
    "parameters_teacher": "of the teacher",
    "nonzero_parameters": "parameters that are not zero",
    "sparsity": "fraction of the network's weights that pruning took out or set to zero",
    "sparsity_before": "fraction of the weights that were zero before the step",
    "macs": "multiply-accumulates of one image",
    "macs_before": "of the model that the step was given",
    "macs_teacher": "of the teacher",
    "bits": "mean bits of a parameter; 32 where it is float",
    "float_layers": "layers that a quantized model keeps in float",
    "bytes": "of weights.kz where the model was measured, else of weights.safetensors",
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
    "objective": "what the choice, or the search, was made by",
    "max_accuracy_drop": "fraction by which validation accuracy could lie below the teacher's",
    "candidates": "compared beside the teacher",
    "candidates_within_bound": "of these, those that hold max_accuracy_drop",
    "published": "1 where the model is published, else 0",
    "challenge": "1 where a challenger is to be made, else 0",
    # Searches.
    "experiment": "name of the Katib Experiment",
    "algorithm": "that chose the trials",
    "trials": "that ended",
    "trials_without_result": "of these, those without a value",
    "best_trial": "its name",
    "best_value": "its value of the objective",
    "page": "address of the Experiment in Katib's pages",
}

MODEL_KEYS = ("framework", "network", "dataset", "method", "digest", "parameters", "bytes", "bits", "sparsity")
MEASURED_KEYS = ("candidate", "test_accuracy", "latency_ms")
# What each kind of artifact says at least, beside display_name.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "dataset": ("dataset", "train_images", "validation_images", "test_images", "classes", "shape", "digest"),
    "model": MODEL_KEYS,
    "measured model": (*MODEL_KEYS, *MEASURED_KEYS),
    "report": ("network", "dataset", "candidate", "objective", "candidates", "test_accuracy", "bytes", "latency_ms"),
    "receipt": ("published", "model_name", "reason", "test_accuracy", "bytes"),
    "champion": ("model_name", "challenge", "reason"),
    "search": ("experiment", "algorithm", "objective", "trials", "trials_without_result", "best_trial", "best_value"),
}


def dataset_metadata(directory: Path) -> dict[str, Value]:
    """Return what a Dataset artifact says of itself."""
    content = read_json(directory / "dataset.json", format_version=FORMAT)
    return _kept(
        {
            "display_name": content["name"],
            "dataset": content["name"],
            **{f"{split}_images": count for split, count in content["splits"].items()},
            "classes": len(content["classes"]),
            "shape": "x".join(map(str, content["shape"])),
            "digest": sha256(directory / "dataset.json"),
        }
    )


def model_metadata(directory: Path, *, title: str, dataset_dir: Path | None = None) -> dict[str, Value]:
    """Return what a Model artifact says of itself.

    Args:
        directory: the artifact; its evaluation.json, where there is one, gives what was measured.
        title: its display name, in which {network}, {method} and {candidate} stand for the model's own.
        dataset_dir: the Dataset artifact that it was made with; a measured model has the name of its own.
    """
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
        values["dataset"] = read_json(dataset_dir / "dataset.json", format_version=FORMAT)["name"]
    if (directory / EVALUATION).is_file():
        values |= _measured(read_evaluation(directory))
    return _kept({"display_name": title.format(**{"candidate": "", **values}), **values})


def report_metadata(directory: Path) -> dict[str, Value]:
    """Return what a report says of itself: the choice, and the chosen model's figures."""
    report = read_report(directory)
    chosen = next(model for model in models(report) if model["name"] == report["chosen"])
    return _kept(
        {
            "display_name": f"report: {report['title']}",
            "network": report["network"],
            "dataset": report["dataset"]["name"],
            "candidate": report["chosen"],
            "reason": report["reason"],
            "objective": report["objective"],
            "max_accuracy_drop": report["max_accuracy_drop"],
            "candidates": len(report["candidates"]),
            "candidates_within_bound": sum(model["within_bound"] for model in report["candidates"]),
            "teacher_test_accuracy": report["teacher"]["test_accuracy"],
            "test_accuracy": chosen["test_accuracy"],
            "bytes": chosen["bytes"]["kz"],
            "latency_ms": chosen["latency_ms"]["batch_1"]["median"],
        }
    )


def receipt_metadata(directory: Path) -> dict[str, Value]:
    """Return what a publication's receipt says of itself."""
    receipt = read_json(directory / "receipt.json", format_version=FORMAT)
    record = read_json(directory / "version.json", format_version=FORMAT)
    name = receipt["model_name"]
    title = f"published {name} {receipt['version']}" if receipt["published"] else f"not published: {name}"
    return _kept(
        {
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
    )


def champion_metadata(directory: Path) -> dict[str, Value]:
    """Return what the look at the published champion says of itself."""
    verdict = read_json(directory / "champion.json", format_version=FORMAT)
    name, version = verdict["model_name"], verdict["version"]
    return _kept(
        {
            "display_name": f"champion {name} {version}" if version else f"no champion of {name} yet",
            "model_name": name,
            "version": version,
            "challenge": int(verdict["challenge"]),
            "reason": verdict["reason"],
            "champion_test_accuracy": verdict["test_accuracy"],
        }
    )


def search_metadata(directory: Path) -> dict[str, Value]:
    """Return what a search says of itself: its trials and the best of them."""
    results = read_json(directory / "results.json", format_version=FORMAT)
    best, finished = results["best"] or {}, len(results["finished"])
    named = {trial["name"]: trial for trial in results["trials"]}
    lost = sum(named[each["name"]]["value"] is None for each in results["finished"])
    return _kept(
        {
            "display_name": f"search: {finished} trials by {results['algorithm']}",
            "experiment": results["experiment"],
            "page": results.get("page", ""),
            "algorithm": results["algorithm"],
            "objective": results["objective"]["metric"],
            "reason": results["reason"],
            "trials": finished,
            "trials_without_result": lost,
            "best_trial": best.get("name"),
            "best_value": best.get("value"),
        }
    )


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    """Return what evaluation.json knows of a model."""
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
    """Return a figure of the last step that measured it."""
    return next((record["metrics"][name] for record in reversed(lineage) if name in record["metrics"]), None)


def _sparsity(lineage: list[dict[str, Any]]) -> float:
    """Return the fraction of the first network's weights that all prune steps together took out or set to zero."""
    kept = 1.0
    for metrics in (record["metrics"] for record in lineage if record["stage"] == "prune"):
        # Each step states zeros against the weights that it was given, of which some were zero already.
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
