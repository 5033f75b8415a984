"""Measure one candidate: on its torch model and on the exported one, in onnxruntime.

Shapes: N images, K classes.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from onnxruntime import InferenceSession
from torch import Tensor

from components.artifacts.dataset import SPLITS, Dataset, load_dataset
from components.artifacts.model import WEIGHTS, Model, load_model, read_description, save_model
from components.artifacts.onnx_form import export_onnx
from components.artifacts.packed import pack_model
from components.artifacts.report import EVALUATION, FORMAT_VERSION, evaluation_bytes
from components.evaluate.config import EvaluateConfig
from components.measuring.accuracy import accuracy, predict
from components.measuring.classification import agreement, confusion, per_class_accuracy
from components.measuring.environment import describe_environment
from components.measuring.latency import Latency, measure_latency, open_session, predict_onnx
from components.measuring.memory import peak_memory_bytes
from components.measuring.size import count_nonzero, count_parameters, fp32_bytes, layer_table

BATCHES = (1, 64)
ONNX = "model.onnx"
KZ = "weights.kz"


def run(
    config: EvaluateConfig, *, dataset_dir: Path, model_dir: Path, candidate_dir: Path, teacher_dir: Path | None = None
) -> dict[str, float]:
    """Measure the model and write it again with model.onnx, weights.kz and evaluation.json beside it.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact.
        model_dir: the Model artifact to measure.
        candidate_dir: where the Model artifact with its measurements goes.
        teacher_dir: the Model artifact that latency is measured against, in turns. If it holds model.onnx,
            as a candidate does, that is taken, else the teacher is exported.

    Returns:
        The figures of evaluation.json that are one number, the same names for every candidate.

    Raises:
        ValueError: the model does not fit the dataset, or the exported model disagrees with it.
        ArtifactError: ONNX cannot express the network.
    """
    dataset, model = load_dataset(dataset_dir), load_model(model_dir)
    teacher = load_model(teacher_dir) if teacher_dir else None
    for role, each in (("model", model), ("teacher", teacher)):
        if each is not None:
            _check_fits(role, each, dataset)
    candidate = _export(model, dataset)
    reference = _teacher(teacher_dir, teacher, dataset) if teacher_dir and teacher else None
    kz = pack_model(model)
    evaluation = {
        "format_version": FORMAT_VERSION,
        "name": config.name,
        **_origin(model, dataset),
        **_accuracies(config, model, dataset, candidate.session, reference.session if reference else None),
        **_sizes(model, dataset),
        "bytes": {
            "fp32": fp32_bytes(model.module),
            "stored": (model_dir / WEIGHTS).stat().st_size,
            "kz": len(kz),
            "onnx": len(candidate.onnx),
        },
        **_times(config, dataset, candidate.session, reference.session if reference else None),
        "peak_memory_bytes": peak_memory_bytes(candidate.onnx, batch=max(BATCHES)),
        "environment": describe_environment(),
    }
    files = {ONNX: candidate.onnx, KZ: kz, EVALUATION: evaluation_bytes(evaluation)}
    save_model(candidate_dir, model, files=files)
    return _metrics(evaluation)


@dataclasses.dataclass(frozen=True)
class Exported:
    """An ONNX file and the session that runs it."""

    onnx: bytes
    session: InferenceSession


def _export(model: Model, dataset: Dataset) -> Exported:
    onnx = export_onnx(model, dataset)
    return Exported(onnx, open_session(onnx))


def _teacher(directory: Path, teacher: Model, dataset: Dataset) -> Exported:
    """Read the teacher's model.onnx where it was evaluated before; its digest was checked when it was loaded."""
    if ONNX in read_description(directory)["files"]:
        onnx = (directory / ONNX).read_bytes()
        return Exported(onnx, open_session(onnx))
    return _export(teacher, dataset)


def _check_fits(role: str, model: Model, dataset: Dataset) -> None:
    channels, size, _ = dataset.shape
    wanted = {"classes": len(dataset.classes), "channels": channels, "image_size": size}
    for name, value in wanted.items():
        found = model.network.arguments.get(name)
        if found != value:
            raise ValueError(f"the {role}'s {name} must be the dataset's, {value}, but got {found}.")


def _origin(model: Model, dataset: Dataset) -> dict[str, Any]:
    """Return what made the candidate."""
    return {
        "network": model.network.name,
        "steps": [record["summary"] for record in model.lineage if record["stage"] != "train"],
        "curves": [
            {"stage": record["stage"], "points": record["curves"]} for record in model.lineage if record["curves"]
        ],
        "lineage": list(model.lineage),
        "dataset": {
            "name": dataset.name,
            "classes": list(dataset.classes),
            "shape": list(dataset.shape),
            "splits": {name: len(dataset.split(name)) for name in SPLITS},
            "seed": dataset.seed,
            "source": dataset.source,
        },
    }


def _accuracies(
    config: EvaluateConfig,
    model: Model,
    dataset: Dataset,
    session: InferenceSession,
    teacher: InferenceSession | None,
) -> dict[str, Any]:
    """Measure on the validation and test splits.

    Raises:
        ValueError: torch and onnxruntime agree on too few test images.
    """
    labels_N = dataset.test.labels
    validation_NK = predict(model.module, dataset.validation, dataset, batch_size=config.batch_size)
    test_NK = predict(model.module, dataset.test, dataset, batch_size=config.batch_size)
    onnx_NK = _predict_onnx(session, dataset, config.batch_size)
    same = agreement(test_NK.argmax(1), onnx_NK.argmax(1))
    if same < config.min_agreement:
        raise ValueError(
            f"the exported model must agree with torch on at least {config.min_agreement} of the test images,"
            f" but agrees on {same:.4f}."
        )
    confusion_KK = confusion(test_NK.argmax(1), labels_N, len(dataset.classes))
    result = {
        "validation_accuracy": accuracy(validation_NK, dataset.validation.labels),
        "test_accuracy": accuracy(test_NK, labels_N),
        "onnx_test_accuracy": accuracy(onnx_NK, labels_N),
        "onnx_agreement": same,
        "per_class_accuracy": per_class_accuracy(confusion_KK),
        "confusion": confusion_KK.tolist(),
        "teacher_agreement": None,
    }
    if teacher is not None:
        teacher_NK = _predict_onnx(teacher, dataset, config.batch_size)
        result["teacher_agreement"] = agreement(test_NK.argmax(1), teacher_NK.argmax(1))
    return result


def _predict_onnx(session: InferenceSession, dataset: Dataset, batch_size: int) -> Tensor:
    parts = [
        torch.from_numpy(predict_onnx(session, dataset.normalise(images_u8).numpy(), batch_size=batch_size))
        for images_u8 in dataset.test.images.split(batch_size)
    ]
    return torch.cat(parts)


def _sizes(model: Model, dataset: Dataset) -> dict[str, Any]:
    layers = layer_table(model, dataset.shape)
    return {
        "parameters": count_parameters(model.module),
        "nonzero_parameters": count_nonzero(model.module),
        "macs": sum(layer["macs"] for layer in layers),
        "layers": layers,
    }


def _times(
    config: EvaluateConfig, dataset: Dataset, session: InferenceSession, teacher: InferenceSession | None
) -> dict[str, Any]:
    """Time the candidate and, in turns with it, the teacher.

    ``teacher_latency_ms`` is the teacher's in the same minute on the same machine: a ratio of these two
    is fairer than one between two runs of this stage.
    """
    sessions = {"candidate": session} if teacher is None else {"candidate": session, "teacher": teacher}
    measured: dict[int, dict[str, Latency]] = {}
    for batch in BATCHES:
        places_N = torch.arange(batch) % len(dataset.test)
        images_NCHW = dataset.normalise(dataset.test.images[places_N]).numpy()
        measured[batch] = measure_latency(sessions, images_NCHW, seconds=config.latency_seconds)
    result: dict[str, Any] = {
        "latency_ms": {f"batch_{batch}": times["candidate"].describe() for batch, times in measured.items()},
        "throughput_images_per_s": 1000 * BATCHES[-1] / measured[BATCHES[-1]]["candidate"].median_ms,
    }
    if teacher is not None:
        result["teacher_latency_ms"] = {
            f"batch_{batch}": times["teacher"].describe() for batch, times in measured.items()
        }
    return result


def _metrics(evaluation: dict[str, Any]) -> dict[str, float]:
    """Return the figures that are one number; the teacher agrees with itself."""
    names = ("validation_accuracy", "test_accuracy", "onnx_test_accuracy", "onnx_agreement", "teacher_agreement")
    counts = ("parameters", "nonzero_parameters", "macs", "throughput_images_per_s", "peak_memory_bytes")
    metrics = {name: 1.0 if evaluation[name] is None else float(evaluation[name]) for name in (*names, *counts)}
    metrics |= {f"bytes_{name}": float(value) for name, value in evaluation["bytes"].items()}
    return metrics | {f"latency_{name}_ms": times["median"] for name, times in evaluation["latency_ms"].items()}
