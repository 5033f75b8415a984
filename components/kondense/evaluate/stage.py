"""Measure one candidate: the torch model, and the exported model in onnxruntime.

Shapes: N images, K classes.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kondense.artifacts.model import Model, encode_state, load_model, save_model
from kondense.artifacts.report import EVALUATION, FORMAT_VERSION, Evaluation, evaluation_bytes
from kondense.artifacts.tensors import tensor_bytes
from kondense.codec.model_file import KZ, pack_model
from kondense.data.at_once import at_once
from kondense.data.dataset import SPLITS, Dataset, load_dataset
from kondense.data.streamed import Images
from kondense.display import html_table, metric_rows, text_table
from kondense.errors import InputError
from kondense.evaluate.config import EvaluateConfig
from kondense.evaluate.exports import (
    BATCHES,
    IN_FLOAT,
    ONNX,
    Form,
    choose_arithmetic,
    export_forms,
    exported_onnx,
    form_of,
    teacher_form,
)
from kondense.evaluate.program import checked_program
from kondense.evaluate.timings import describe_primary, integer_speedup, time_forms, time_further
from kondense.export.onnx import read_metadata
from kondense.heap import trim
from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.chance import chance_text, is_at_chance
from kondense.measuring.classification import agreement, confusion, paired, per_class_accuracy
from kondense.measuring.environment import describe_environment
from kondense.measuring.kernels import count_kernels
from kondense.measuring.latency import predict_onnx, shrink, takes_pixels
from kondense.measuring.memory import peak_memory_bytes
from kondense.measuring.robustness import measure_robustness
from kondense.measuring.size import count_nonzero, count_parameters, fp32_bytes, layer_table
from kondense.training.transform import check_fits

PROGRAM = "program.pt2"


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluated:
    """A measured candidate; a notebook shows its figures.

    Attributes:
        model: the candidate; the input without its activation quantizers where float arithmetic is faster.
        evaluation: the content of evaluation.json.
        files: model.onnx, weights.kz and, if requested, program.pt2, by name.
    """

    model: Model
    evaluation: Evaluation
    files: dict[str, bytes]

    @property
    def metrics(self) -> dict[str, float]:
        """The scalar figures of the evaluation, with the same names for every candidate."""
        return _metrics(self.evaluation)

    def __str__(self) -> str:
        return "\n".join([self._title(), text_table(metric_rows(self.metrics))])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(metric_rows(self.metrics), title=self._title())

    def _title(self) -> str:
        return f"{self.evaluation['name']}: {'; '.join(self.evaluation['steps']) or 'unchanged'}"


def run(
    config: EvaluateConfig, *, dataset_dir: Path, model_dir: Path, candidate_dir: Path, teacher_dir: Path | None = None
) -> dict[str, float]:
    """Measure the model and write it with model.onnx, weights.kz and evaluation.json.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact.
        model_dir: the Model artifact to measure.
        candidate_dir: receives the Model artifact with its measurements.
        teacher_dir: the Model artifact with which latency and predictions are compared. If it holds no model.onnx,
            the teacher is exported.

    Returns:
        ``Evaluated.metrics``.

    Raises:
        InputError: the model does not fit the dataset, or the exported model disagrees with it.
        ArtifactError: ONNX cannot express the network.
    """
    dataset, model = load_dataset(dataset_dir), load_model(model_dir)
    teacher = load_model(teacher_dir) if teacher_dir else None
    exported = exported_onnx(teacher_dir, uint8_input=config.uint8_input) if teacher_dir else None
    evaluated = evaluate(model, dataset, config, teacher=teacher, teacher_onnx=exported)
    files = evaluated.files | {EVALUATION: evaluation_bytes(evaluated.evaluation)}
    save_model(candidate_dir, evaluated.model, files=files)
    return evaluated.metrics


def evaluate(
    model: Model,
    dataset: Dataset,
    config: EvaluateConfig,
    *,
    teacher: Model | None = None,
    teacher_onnx: bytes | None = None,
) -> Evaluated:
    """Measure a model: accuracy, size, latency, robustness.

    If layers with quantized inputs run faster in float, the candidate is the model without its input quantizers; its
    weights remain integers.

    Args:
        model: the model; not changed.
        dataset: the validation and test splits are measured.
        config: the parameters.
        teacher: the model with which latency and predictions are compared.
        teacher_onnx: its ONNX file, if it is exported already.

    Raises:
        InputError: the model does not fit the dataset, or the exported model disagrees with it.
        ArtifactError: ONNX cannot express the network.
    """
    check_fits("model", model, dataset)
    if teacher is not None:
        check_fits("teacher", teacher, dataset)
    forms = export_forms(model, dataset, arithmetic=config.arithmetic, uint8_input=config.uint8_input)
    reference = teacher_form(teacher, dataset, teacher_onnx, uint8_input=config.uint8_input) if teacher else None
    rng = np.random.default_rng(config.seed)
    timed = time_forms(forms, reference, dataset, seconds=config.latency_seconds)
    arithmetic = choose_arithmetic(forms, integer_speedup(timed, rng), requested=config.arithmetic)
    if arithmetic["integer_speedup"] and arithmetic["chosen"] == IN_FLOAT:
        LOG.warning("the exported file computes in float: %s", arithmetic["reason"])
    candidate = forms[arithmetic["chosen"]]
    times = describe_primary(timed, arithmetic["chosen"], rng)
    if config.further_latency_seconds:
        times["timings"] += time_further(candidate, reference, dataset, seconds=config.further_latency_seconds, rng=rng)
    # Sessions keep the memory of their largest batch, which the process that measures memory then lacks.
    shrink(candidate.session, _images(candidate, dataset.test.images[:1], dataset))
    chosen, others = (candidate.model, candidate.onnx), reference and (reference.model, reference.onnx)
    del forms, candidate, reference
    trim()
    run_s = times["latency_ms"][f"batch_{max(BATCHES)}"]["median"] / 1000
    peak_bytes = peak_memory_bytes(chosen[1], batch=max(BATCHES), run_s=run_s)
    candidate, reference = form_of(*chosen, dataset.shape), form_of(*others, dataset.shape) if others else None
    kz = pack_model(candidate.model)
    files = {ONNX: candidate.onnx, KZ: kz}
    evaluation = {
        "format_version": FORMAT_VERSION,
        "name": config.name,
        **_origin(candidate.model, dataset, rounded=bool(model.activations)),
        **_accuracies(config, dataset, candidate, reference),
        **_sizes(candidate.model, dataset),
        "bytes": {
            "fp32": fp32_bytes(model.module),
            "stored": len(tensor_bytes(encode_state(model))),
            "kz": len(kz),
            "onnx": len(candidate.onnx),
        },
        "bits_per_weight": 8 * len(kz) / count_parameters(model.module),
        **times,
        "arithmetic": arithmetic,
        "kernels": count_kernels(candidate.onnx),
        "runtimes": read_metadata(candidate.onnx).get("runtimes"),
        "robustness": _robustness(config, dataset, candidate),
        "program": _program(config, dataset, candidate.model, files),
        "peak_memory_bytes": peak_bytes,
        "environment": describe_environment(),
    }
    return Evaluated(candidate.model, cast(Evaluation, evaluation), files)


def _origin(model: Model, dataset: Dataset, *, rounded: bool) -> dict[str, Any]:
    """Return the candidate's origin; ``rounded``: its inputs were quantized before float arithmetic was chosen."""
    steps = [record["summary"] for record in model.lineage if record["stage"] != "train"]
    return {
        "network": model.network.name,
        "steps": [*steps, "compute in float"] if rounded and not model.activations else steps,
        "curves": [
            {"stage": record["stage"], "points": record["curves"]} for record in model.lineage if record["curves"]
        ],
        "lineage": list(model.lineage),
        "dataset": {
            "name": dataset.name,
            "classes": list(dataset.classes),
            "shape": list(dataset.shape),
            "splits": {name: len(dataset.split(name)) for name in SPLITS},
            **({"skipped": dict(dataset.skipped)} if dataset.skipped else {}),
            "seed": dataset.seed,
            "source": dataset.source,
        },
    }


def _accuracies(config: EvaluateConfig, dataset: Dataset, candidate: Form, teacher: Form | None) -> dict[str, Any]:
    """Measure on the validation and test splits.

    Raises:
        InputError: torch and onnxruntime agree on too few test images.
    """
    labels_N, module = dataset.test.labels, candidate.model.module
    validation_NK = predict(module, dataset.validation, dataset, batch_size=config.batch_size)
    test_NK = predict(module, dataset.test, dataset, batch_size=config.batch_size)
    onnx_NK = _predict_onnx(candidate, dataset, dataset.test.images, config.batch_size)
    same = agreement(test_NK.argmax(1), onnx_NK.argmax(1))
    if same < config.min_agreement:
        raise InputError(
            f"the exported model must agree with torch on at least {config.min_agreement} of the test images,"
            f" but agrees on {same:.4f}."
        )
    confusion_KK = confusion(test_NK.argmax(1), labels_N, len(dataset.classes))
    result: dict[str, Any] = {
        "validation_accuracy": accuracy(validation_NK, dataset.validation.labels),
        "test_accuracy": accuracy(test_NK, labels_N),
        "onnx_test_accuracy": accuracy(onnx_NK, labels_N),
        "onnx_agreement": same,
        "per_class_accuracy": per_class_accuracy(confusion_KK),
        "confusion": confusion_KK.tolist(),
        "teacher_agreement": None,
        "paired": None,
    }
    if teacher is None:
        _tell_chance(dataset, result["validation_accuracy"])
        return result
    teacher_NK = _predict_onnx(teacher, dataset, dataset.test.images, config.batch_size)
    result["teacher_agreement"] = agreement(test_NK.argmax(1), teacher_NK.argmax(1))
    before_NK = _predict_onnx(teacher, dataset, dataset.validation.images, config.batch_size)
    result["paired"] = {
        "validation": paired(before_NK.argmax(1), validation_NK.argmax(1), dataset.validation.labels),
        "test": paired(teacher_NK.argmax(1), test_NK.argmax(1), labels_N),
    }
    return result


def _tell_chance(dataset: Dataset, validation_accuracy: float) -> None:
    """Warn if a model without a teacher, such as the teacher itself, has learned nothing that can be seen."""
    labels_N = dataset.validation.labels
    share = float(labels_N.bincount().max()) / len(labels_N)
    if is_at_chance(validation_accuracy, len(labels_N), share):
        LOG.warning("%s", chance_text(validation_accuracy, len(labels_N), share))


def _predict_onnx(form: Form, dataset: Dataset, images_u8: Images, batch_size: int) -> Tensor:
    """Return the logits [N, K] that onnxruntime computes for uint8 images [N, C, H, W]."""
    batch_size = at_once(dataset.shape, batch_size)
    parts = [
        predict_onnx(form.session, _images(form, part_u8, dataset), batch_size=batch_size)
        for part_u8 in images_u8.split(batch_size)
    ]
    return torch.from_numpy(np.concatenate(parts))


def _images(form: Form, images_u8: Tensor, dataset: Dataset) -> NDArray[Any]:
    """Return images as the input of a form."""
    images: NDArray[Any] = (images_u8 if takes_pixels(form.session) else dataset.normalise(images_u8)).numpy()
    return images


def _robustness(config: EvaluateConfig, dataset: Dataset, candidate: Form) -> dict[str, Any] | None:
    if not config.robustness_images:
        return None
    return measure_robustness(
        lambda images_u8: _predict_onnx(candidate, dataset, images_u8, config.batch_size),
        dataset.test,
        images=config.robustness_images,
        seed=config.seed,
    )


def _program(config: EvaluateConfig, dataset: Dataset, model: Model, files: dict[str, bytes]) -> dict[str, Any] | None:
    """Add the torch.export program to ``files`` if it is requested and lossless; return its description."""
    if not config.program:
        return None
    content, described = checked_program(model, dataset)
    if content is not None:
        files[PROGRAM] = content
    return described


def _sizes(model: Model, dataset: Dataset) -> dict[str, Any]:
    layers = layer_table(model, dataset.shape)
    return {
        "parameters": count_parameters(model.module),
        "nonzero_parameters": count_nonzero(model.module),
        "macs": sum(layer["macs"] for layer in layers),
        "layers": layers,
    }


def _metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Return the scalar figures; without a teacher, the agreement with it is 1."""
    names = ("validation_accuracy", "test_accuracy", "onnx_test_accuracy", "onnx_agreement", "teacher_agreement")
    counts = ("parameters", "nonzero_parameters", "macs", "throughput_images_per_s", "peak_memory_bytes")
    metrics = {name: 1.0 if evaluation[name] is None else float(evaluation[name]) for name in (*names, *counts)}
    metrics["bits_per_weight"] = evaluation["bits_per_weight"]
    if evaluation["robustness"]:
        metrics["robust_accuracy"] = evaluation["robustness"]["mean"]
    metrics |= {f"bytes_{name}": float(value) for name, value in evaluation["bytes"].items()}
    return metrics | {f"latency_{name}_ms": times["median"] for name, times in evaluation["latency_ms"].items()}
