"""The measurements of one candidate (evaluation.json) and of a run (report.json), typed and checked. Stdlib only.

Legend: K classes. Accuracies, agreements and sparsities are fractions; bytes are bytes, times milliseconds.
Further keys are allowed: readers of a format version ignore unknown keys.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from kondense.artifacts.measurements import (
    Arithmetic,
    Count,
    Fraction,
    Latency,
    Positive,
    PositiveCount,
    Program,
    Ratios,
    Robustness,
    Runtimes,
    Timing,
)
from kondense.artifacts.schema import check_fields
from kondense.files import ArtifactError, json_bytes, read_json
from kondense.json_text import SHOWN

FORMAT_VERSION = 1
EVALUATION = "evaluation.json"
REPORT = "report.json"
PAGE = "report.html"


class Bytes(TypedDict):
    """Sizes of one model: every weight as fp32, weights.safetensors, weights.kz and model.onnx."""

    fp32: PositiveCount
    stored: PositiveCount
    kz: PositiveCount
    onnx: PositiveCount


class Layer(TypedDict):
    """One layer with weights. ``bits`` is 32 if the weight is float; ``float_reason`` is the reason for that."""

    name: str
    type: str
    shape: list[Count]
    parameters: Count
    nonzero: Count
    sparsity: Fraction
    bits: Positive
    macs: Count
    float_reason: NotRequired[str]


class CurvePoint(TypedDict):
    """One epoch of training."""

    epoch: float
    train_loss: float
    validation_accuracy: Fraction
    learning_rate: float
    seconds: NotRequired[float]


class Curve(TypedDict):
    """The epochs of one stage that trained the model."""

    stage: str
    points: list[CurvePoint]


class LineageRecord(TypedDict):
    """One stage of the model's lineage, written by ``kondense.artifacts.lineage.stage_record``."""

    stage: str
    summary: str
    config: dict[str, Any]
    inputs: dict[str, str]
    metrics: dict[str, float]
    details: NotRequired[dict[str, Any]]
    versions: dict[str, str]
    revision: NotRequired[str]


class DatasetSummary(TypedDict):
    """The data of the evaluation; ``shape`` is that of one image, [C, H, W].

    ``skipped`` counts the images that were left out, by reason; absent if there are none.
    """

    name: str
    classes: list[str]
    shape: list[Count]
    splits: dict[str, Count]
    skipped: NotRequired[dict[str, Count]]
    seed: int
    source: str


class Environment(TypedDict):
    """The machine of the measurement; ``cpu_flags`` are those relevant to kernels."""

    cpu: str
    cpu_flags: list[str]
    cores: Count
    memory_bytes: Count
    gpu: str | None
    providers: NotRequired[list[str]]
    platform: str
    versions: dict[str, str]


class Paired(TypedDict):
    """Images on which a candidate and the teacher were both tried: those that only one of them gets right."""

    images: PositiveCount
    lost: Count
    gained: Count


class Spread(TypedDict):
    """A 95 % interval."""

    low: float
    high: float


class Evaluation(TypedDict):
    """evaluation.json: origin and measurements of one candidate.

    ``confusion`` is [K][K], rows are true classes. ``teacher_latency_ms`` was measured in turns with the candidate on
    the same machine; ``latency_ratio`` is teacher / candidate of these. ``timings`` holds all backends: runtime,
    threads, batch size. ``paired`` are the images of each split on which it and the teacher differ. ``kernels``
    counts the operators that onnxruntime runs; ``runtimes`` says which versions serve the ONNX file.
    """

    format_version: int
    name: str
    steps: list[str]
    network: str
    validation_accuracy: Fraction
    test_accuracy: Fraction
    onnx_test_accuracy: Fraction
    onnx_agreement: Fraction
    teacher_agreement: Fraction | None
    paired: NotRequired[dict[str, Paired] | None]
    per_class_accuracy: list[Fraction]
    confusion: list[list[Count]]
    parameters: PositiveCount
    nonzero_parameters: Count
    macs: Count
    bytes: Bytes
    latency_ms: Latency
    bits_per_weight: NotRequired[Positive]
    teacher_latency_ms: NotRequired[Latency]
    latency_ratio: NotRequired[Ratios | None]
    timings: NotRequired[list[Timing]]
    arithmetic: NotRequired[Arithmetic]
    kernels: NotRequired[dict[str, PositiveCount]]
    runtimes: NotRequired[Runtimes | None]
    robustness: NotRequired[Robustness | None]
    program: NotRequired[Program | None]
    throughput_images_per_s: Positive
    peak_memory_bytes: Count
    layers: list[Layer]
    curves: list[Curve]
    lineage: list[LineageRecord]
    dataset: DatasetSummary
    environment: Environment


class WorstClass(TypedDict):
    """The class with the largest loss of test accuracy against the teacher.

    ``flagged``: the loss is at least 3 points larger than that of the test accuracy, and not explained by chance.
    """

    name: str
    change: float
    flagged: bool


class Difference(TypedDict):
    """A candidate against the teacher: accuracies as candidate - teacher, ratios as teacher / candidate.

    A ratio above 1 is a gain. ``bytes_ratio`` is the teacher as dense fp32 / the candidate's weights.kz, ``onnx_ratio``
    compares model.onnx. ``latency_ratio`` compares the medians at batch 1, measured in turns if evaluate did so.
    ``macs_ratio`` is null for a network without multiplications. ``validation_interval`` and ``test_interval`` are the
    differences' intervals over images, paired; null without the images' own results.
    """

    validation_accuracy: float
    test_accuracy: float
    validation_interval: NotRequired[Spread | None]
    test_interval: NotRequired[Spread | None]
    per_class_accuracy: list[float]
    worst_class: NotRequired[WorstClass]
    bytes_ratio: Positive
    onnx_ratio: Positive
    latency_ratio: Positive
    latency_ratio_batch_64: Positive
    parameters_ratio: Positive
    macs_ratio: Positive | None


class Candidate(Evaluation):
    """A model in report.json: evaluation, digest of the artifact, and comparison with the others.

    ``within_bound``: the validation accuracy meets the bound. ``bound``: ``met`` or ``missed`` if the interval of the
    difference lies on one side of the bound, ``undecided`` if the images are too few to tell. ``score``: the
    objective's ratio, which the choice maximises. ``pareto``: the Pareto fronts of test accuracy that contain it, of
    ``bytes`` and ``latency``.
    """

    digest: str
    difference: Difference
    within_bound: bool
    bound: NotRequired[str]
    score: Positive
    pareto: list[str]


class FailedCandidate(TypedDict):
    """A candidate that could not be made or measured: the stage that failed, and the reason in one line."""

    name: str
    step: str
    reason: str


class Report(TypedDict):
    """report.json. ``candidates`` excludes the teacher; ``chosen`` names a candidate or the teacher.

    ``failed`` are the candidates that are not among them because a step failed.

    ``lineage`` is that of the chosen model, followed by the record of the report.
    """

    format_version: int
    title: str
    dataset: DatasetSummary
    network: str
    objective: str
    max_accuracy_drop: Fraction
    teacher: Candidate
    candidates: list[Candidate]
    failed: NotRequired[list[FailedCandidate]]
    chosen: str
    reason: str
    notes: list[str]
    lineage: list[LineageRecord]
    environment: Environment


def validate_evaluation(content: Mapping[str, Any], *, place: str = EVALUATION) -> Evaluation:
    """Check the content of an evaluation.json and return it typed.

    Raises:
        ArtifactError: a key is missing, or a value has the wrong type or is out of range; the text gives path, rule
            and value.
    """
    _check_version(place, content)
    check_fields(place, content, Evaluation)
    evaluation = cast(Evaluation, content)
    _check_classes(place, evaluation)
    return evaluation


def validate_report(content: Mapping[str, Any], *, place: str = REPORT) -> Report:
    """Check the content of a report.json and return it typed.

    Raises:
        ArtifactError: as ``validate_evaluation``; or two models share a name, or ``chosen`` names none.
    """
    _check_version(place, content)
    check_fields(place, content, Report)
    report = cast(Report, content)
    names = [model["name"] for model in models(report)]
    for index, model in enumerate(models(report)):
        _check_classes(f"{place}: {model['name']}", model)
        if model["dataset"]["classes"] != report["dataset"]["classes"]:
            raise ArtifactError(f"{place}: classes of {model['name']!r} must be those of the report, but are others.")
        if model["name"] in names[:index]:
            raise ArtifactError(f"{place}: names of candidates must be unique, but two are {names[index]!r}.")
    if report["chosen"] not in names:
        raise ArtifactError(f"{place}: chosen must be one of {', '.join(names)}, but got {report['chosen']!r}.")
    return report


def evaluation_bytes(content: Mapping[str, Any]) -> bytes:
    """Check ``content`` and return the bytes of evaluation.json, a further file of ``save_model``."""
    return json_bytes(validate_evaluation(content))


def report_bytes(content: Mapping[str, Any]) -> bytes:
    """Check ``content`` and return the bytes of report.json."""
    return json_bytes(validate_report(content))


def read_evaluation(directory: Path) -> Evaluation:
    """Read and check the evaluation.json in ``directory``.

    Raises:
        ArtifactError: the file is missing, has an unknown format version, or breaks a rule.
    """
    path = directory / EVALUATION
    return validate_evaluation(read_json(path, format_version=FORMAT_VERSION), place=str(path))


def read_report(directory: Path) -> Report:
    """Read and check the report.json in ``directory``.

    Raises:
        ArtifactError: the file is missing, has an unknown format version, or breaks a rule.
    """
    path = directory / REPORT
    return validate_report(read_json(path, format_version=FORMAT_VERSION), place=str(path))


def models(report: Report) -> list[Candidate]:
    """Return the teacher and then the other candidates."""
    return [report["teacher"], *report["candidates"]]


def shortcomings(report: Report) -> list[str]:
    """Return one line per candidate that failed, and per step that fell short of the request; empty if all is well."""
    together: dict[tuple[str, str], list[str]] = {}  # candidates share their first steps
    for each in report.get("failed", ()):
        together.setdefault((each["step"], each["reason"]), []).append(each["name"])
    lines = [f"{', '.join(names)} failed in {step}: {reason}" for (step, reason), names in together.items()]
    for model in models(report):
        records = model["lineage"]
        texts = [record.get("details", {}).get("shortfall", "") for record in records]
        lines += [f"{model['name']} falls short: {text}" for text in texts if text]
    return lines


def _check_version(place: str, content: Mapping[str, Any]) -> None:
    if content.get("format_version") != FORMAT_VERSION:
        version = ascii(content.get("format_version"))[:SHOWN]
        raise ArtifactError(f"{place} must have format_version {FORMAT_VERSION}, but got {version}.")


def _check_classes(place: str, evaluation: Evaluation) -> None:
    if not evaluation["name"].strip():
        raise ArtifactError(f"{place}: name must not be empty, but got {evaluation['name']!r}.")
    classes = len(evaluation["dataset"]["classes"])
    if (count := len(evaluation["per_class_accuracy"])) != classes:
        raise ArtifactError(f"{place}: per_class_accuracy must have one value per class, {classes}, but got {count}.")
    if [len(row) for row in evaluation["confusion"]] != [classes] * classes:
        raise ArtifactError(f"{place}: confusion must be {classes} rows of {classes} counts.")
    if evaluation["nonzero_parameters"] > evaluation["parameters"]:
        raise ArtifactError(
            f"{place}: nonzero_parameters must be at most parameters ({evaluation['parameters']}),"
            f" but got {evaluation['nonzero_parameters']}."
        )
