"""report.json: candidates beside the teacher, their differences, the choice. Stdlib only."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from kondense.artifacts.measurements import Ratio, Timing
from kondense.artifacts.report import (
    FORMAT_VERSION,
    Candidate,
    Difference,
    Environment,
    Evaluation,
    FailedCandidate,
    Report,
    Spread,
    WorstClass,
    validate_report,
)
from kondense.files import ArtifactError
from kondense.measuring.chance import chance_text, is_at_chance
from kondense.report.choice import OBJECTIVES, choose, decided, pareto_front, within_bound
from kondense.report.figures import percent, points, signed_points
from kondense.report.figures import times as times_text
from kondense.report.paired import images_to_decide, interval

LEAST_AGREEMENT = (
    0.999  # int8 kernels round differently from their simulation in float; a larger difference is an error
)
LOST_MORE = 0.03  # a flagged class loses more than the average by this much
CHANCE = 2.5  # standard errors that the worst of some ten classes reaches by chance


def build_report(
    evaluations: Sequence[Evaluation],
    digests: Sequence[str],
    *,
    title: str,
    objective: str,
    max_validation_drop: float,
    record: Mapping[str, Any],
    failed: Sequence[Mapping[str, Any]] = (),
    note: str = "",
) -> Report:
    """Return report.json's checked content.

    Args:
        evaluations: the evaluations, the teacher's first.
        digests: digests of the models, in the same order.
        title: the heading; empty for the names of network and data set.
        objective: a key of ``choice.OBJECTIVES``.
        max_validation_drop: maximum drop of the validation accuracy below the teacher's, a fraction.
        record: the report's own lineage record.
        failed: name, step and reason of the candidates that could not be made or measured.
        note: a further note; empty for none.

    Raises:
        ArtifactError: candidates evaluated on other data, or two with the same name.
    """
    _check_comparable(evaluations)
    models = _ranked(evaluations, digests, objective, max_validation_drop)
    teacher, candidates = models[0], models[1:]
    choice = choose(teacher, candidates, objective, max_validation_drop)
    chosen = next(model for model in models if model["name"] == choice.name)
    dataset = teacher["dataset"]
    content = {
        "format_version": FORMAT_VERSION,
        "title": title or f"{teacher['network']} on {dataset['name']}",
        "dataset": dataset,
        "network": teacher["network"],
        "objective": objective,
        "max_accuracy_drop": max_validation_drop,
        "teacher": teacher,
        "candidates": candidates,
        **({"failed": [_failure(each) for each in failed]} if failed else {}),
        "chosen": choice.name,
        "reason": _with_failed(choice.reason, failed),
        "notes": [*([note] if note else []), *_validation_notes(teacher, max_validation_drop), *notes(models)],
        "lineage": [*chosen["lineage"], dict(record)],
        "environment": teacher["environment"],
    }
    return validate_report(content)


def _with_failed(reason: str, failed: Sequence[Mapping[str, Any]]) -> str:
    names = ", ".join(each["name"] for each in failed)
    return f"{reason} {len(failed)} more could not be made or measured: {names}." if failed else reason


def _failure(failed: Mapping[str, Any]) -> FailedCandidate:
    return {"name": failed["name"], "step": failed["step"], "reason": failed["reason"]}


def difference(teacher: Evaluation, candidate: Evaluation) -> Difference:
    """Return how ``candidate`` differs from ``teacher``; a ratio above 1 is a gain."""
    # On a shared machine, measurements minutes apart differ more than models do; measurements in turns do not.
    teacher_times, times = candidate.get("teacher_latency_ms", teacher["latency_ms"]), candidate["latency_ms"]
    classes = zip(candidate["per_class_accuracy"], teacher["per_class_accuracy"], strict=True)
    return {
        "validation_accuracy": candidate["validation_accuracy"] - teacher["validation_accuracy"],
        "test_accuracy": candidate["test_accuracy"] - teacher["test_accuracy"],
        "validation_interval": _spread(candidate, "validation"),
        "test_interval": _spread(candidate, "test"),
        "per_class_accuracy": [accuracy - teachers for accuracy, teachers in classes],
        "worst_class": worst_class(teacher, candidate),
        "bytes_ratio": teacher["bytes"]["fp32"] / candidate["bytes"]["kz"],
        "onnx_ratio": teacher["bytes"]["onnx"] / candidate["bytes"]["onnx"],
        "latency_ratio": teacher_times["batch_1"]["median"] / times["batch_1"]["median"],
        "latency_ratio_batch_64": teacher_times["batch_64"]["median"] / times["batch_64"]["median"],
        "parameters_ratio": teacher["parameters"] / candidate["parameters"],
        "macs_ratio": teacher["macs"] / candidate["macs"] if teacher["macs"] and candidate["macs"] else None,
    }


def _spread(candidate: Evaluation, split: str) -> Spread | None:
    paired = candidate.get("paired")
    return interval(paired[split]) if paired else None


def worst_class(teacher: Evaluation, candidate: Evaluation) -> WorstClass:
    """Return the class with the largest loss, which a good average would hide."""
    pairs = list(zip(candidate["per_class_accuracy"], teacher["per_class_accuracy"], strict=True))
    index = min(range(len(pairs)), key=lambda place: pairs[place][0] - pairs[place][1])
    accuracy, teachers = pairs[index]
    images = max(sum(teacher["confusion"][index]), 1)
    error = math.sqrt((accuracy * (1 - accuracy) + teachers * (1 - teachers)) / images)
    average = candidate["test_accuracy"] - teacher["test_accuracy"]
    flagged = average - (accuracy - teachers) >= LOST_MORE and teachers - accuracy > CHANCE * error
    return {"name": teacher["dataset"]["classes"][index], "change": accuracy - teachers, "flagged": flagged}


def _validation_notes(teacher: Candidate, max_validation_drop: float) -> list[str]:
    """Return warnings about the images and the teacher that the choice rests on."""
    skipped = teacher["dataset"].get("skipped", {})
    found = [f"{count:,} {reason} images were left out of the data." for reason, count in skipped.items()]
    images = teacher["dataset"]["splits"].get("validation", 0)
    shares = [sum(row) for row in teacher["confusion"]]  # of the test images, whose classes are distributed alike
    largest = max(shares) / max(sum(shares), 1)
    if images and is_at_chance(teacher["validation_accuracy"], images, largest):
        text = chance_text(teacher["validation_accuracy"], images, largest, split="test")
        found.append(text[0].upper() + text[1:])
    if images and images < (needed := images_to_decide(max_validation_drop)):
        found.append(
            f"{images:,} validation images are too few to tell whether a candidate loses {points(max_validation_drop)}"
            f" points: one image is {points(1 / images)} points, and even without a new error {needed:,} are needed"
            " (data_prep.validation_size)."
        )
    return found


def notes(models: Sequence[Candidate]) -> list[str]:
    """Return warnings about the figures, one sentence each."""
    notes = [note for model in models for note in _model_notes(model)] + _float_notes(models) + _slower_notes(models)
    drifting = [model["name"] for model in models if any(not row["settled"] for row in _primary(model))]
    if drifting:
        notes.append(f"Times of {', '.join(drifting)} still drifted after the warm-up: the machine was busy.")
    for model in models:
        if model["onnx_agreement"] < LEAST_AGREEMENT:
            notes.append(
                f"{model['name']}: the exported model predicts the same class as the PyTorch model on only"
                f" {percent(model['onnx_agreement'])} of the test images."
            )
    machines = {machine(model["environment"]): model["name"] for model in reversed(models)}
    if len(machines) > 1:
        where = "; ".join(f"{name} on {place}" for place, name in reversed(machines.items()))
        alone = [model["name"] for model in models[1:] if "teacher_latency_ms" not in model]
        ratios = f"nor can the ratios of {', '.join(alone)}" if alone else "but their ratios to the teacher can"
        notes.append(f"Milliseconds of different machines cannot be compared, {ratios}: {where}.")
    return notes


def _primary(model: Candidate) -> list[Timing]:
    """Return the timings for the comparison of candidates."""
    rows = model.get("timings", [])
    return [row for row in rows if (row["runtime"], row["device"], row["threads"]) == ("onnxruntime", "cpu", 1)]


def _model_notes(model: Candidate) -> list[str]:
    notes = []
    worst = model["difference"].get("worst_class")
    if worst and worst["flagged"]:
        notes.append(
            f"{model['name']}: class {worst['name']} changed by {signed_points(worst['change'])} points, test"
            f" accuracy by {signed_points(model['difference']['test_accuracy'])}."
        )
    program = model.get("program")
    if program and not program["lossless"]:
        notes.append(
            f"{model['name']}: the torch.export program was not kept: its logits differ by up to"
            f" {program['largest_difference']:.2g}."
        )
    for record in model["lineage"]:
        if text := record.get("details", {}).get("shortfall"):
            notes.append(f"{model['name']}: {record['stage']} fell short of the request: {text}")
    return notes


def _float_notes(models: Sequence[Candidate]) -> list[str]:
    """Return what remained in float and why, once for all candidates that have it in common."""
    found: dict[tuple[str, str], list[str]] = {}
    for model in models:
        layers: dict[str, list[str]] = {}
        for layer in model["layers"]:
            if "float_reason" in layer:
                layers.setdefault(layer["float_reason"], []).append(layer["name"] or "what the network holds itself")
        for reason, names in layers.items():
            found.setdefault((", ".join(names), reason), []).append(model["name"])
    return [f"{', '.join(names)}: {layers} remained in float: {reason}." for (layers, reason), names in found.items()]


def _slower_notes(models: Sequence[Candidate]) -> list[str]:
    """Return which models are slower in int8 than in float on their machine, beyond noise, and in which batches."""
    found = []
    for model in models:
        arithmetic = model.get("arithmetic")
        if not arithmetic:
            continue
        ratios, other = arithmetic["integer_speedup"], "the same weights in float"
        if ratios is None and arithmetic["chosen"] == "integer":  # as requested: float was not timed
            ratios, other = model.get("latency_ratio"), "the teacher in float"
        by_batch: dict[str, Ratio] = {"batch 1": ratios["batch_1"], "batch 64": ratios["batch_64"]} if ratios else {}
        slow = {batch: ratio["value"] for batch, ratio in by_batch.items() if ratio["high"] < 1}
        if slow:
            speeds = " and ".join(f"{times_text(value)} at {batch}" for batch, value in slow.items())
            taken = "; the file computes in float" if arithmetic["chosen"] == "float" else ""
            found.append(
                f"{model['name']}: int8 is slower than float for this network on this machine: {speeds} the speed of"
                f" {other}{taken}."
            )
    return found


def machine(environment: Environment) -> str:
    """Return the properties of the machine that determine the speed of the exported model."""
    return f"{environment['cpu']}, {environment['cores']} cores ({' '.join(environment['cpu_flags'])})"


def _ranked(
    evaluations: Sequence[Evaluation], digests: Sequence[str], objective: str, max_validation_drop: float
) -> list[Candidate]:
    teacher = evaluations[0]
    accuracies = [evaluation["test_accuracy"] for evaluation in evaluations]
    smallest = pareto_front([evaluation["bytes"]["kz"] for evaluation in evaluations], accuracies)
    differences = [difference(teacher, evaluation) for evaluation in evaluations]
    fastest = pareto_front([1 / against["latency_ratio"] for against in differences], accuracies)
    models = []
    for index, (evaluation, digest, against) in enumerate(zip(evaluations, digests, differences, strict=True)):
        rank = {
            "digest": digest,
            "difference": against,
            "within_bound": within_bound(teacher, evaluation, max_validation_drop),
            "bound": decided(against, max_validation_drop),
            "score": OBJECTIVES[objective](against),
            "pareto": ["bytes"] * smallest[index] + ["latency"] * fastest[index],
        }
        models.append(cast(Candidate, {**evaluation, **rank}))
    return models


def _check_comparable(evaluations: Sequence[Evaluation]) -> None:
    teacher = evaluations[0]
    for evaluation in evaluations[1:]:
        if evaluation["dataset"] != teacher["dataset"]:
            raise ArtifactError(
                f"{evaluation['name']} must be evaluated on the teacher's data ({teacher['dataset']['name']}, seed"
                f" {teacher['dataset']['seed']}), but was on {evaluation['dataset']['name']}, seed"
                f" {evaluation['dataset']['seed']}, with other classes or splits."
            )
