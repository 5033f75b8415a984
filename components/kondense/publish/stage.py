"""Publish the chosen model as an immutable version and as champion, if it passes the gate."""

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kondense.artifacts.identity import OWN_FILES, directory_identity
from kondense.artifacts.model import load_model, model_digest, read_description
from kondense.artifacts.report import PAGE, REPORT, Candidate, Report, models, read_report
from kondense.data.dataset import FORMATS as DATASET_FORMATS
from kondense.data.dataset import dataset_digest, load_dataset
from kondense.files import ArtifactError, below, new_directory, read_json, sha256, verify_files, write_json
from kondense.measuring.accuracy import accuracy, predict
from kondense.publish.config import PublishConfig, derived_model_name
from kondense.publish.gate import Check, Reference, champion_checks, teacher_checks
from kondense.publish.versions import (
    CHAMPION,
    FORMAT_VERSION,
    RECORD,
    Champion,
    Version,
    VersionRecord,
    model_prefix,
    read_champion,
    read_versions,
    version_id,
    version_ids,
    version_prefix,
    write_champion,
)
from kondense.scratch import scratch_directory
from kondense.store.open import open_store
from kondense.store.store import Store, StoreError

RECEIPT = "receipt.json"
ATTEMPTS = 10  # maximum number of changes of the champion between gate and publication


@dataclasses.dataclass(frozen=True)
class Situation:
    """The state of the published model.

    Attributes:
        versions: ids of the complete versions.
        same: id of the version that computes the same as the model to publish; empty if there is none.
        champion: the pointer; None before the first publication.
        reference: the champion for comparison.
    """

    versions: list[str]
    same: str
    champion: Champion | None
    reference: Reference | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a publication; ``version`` is empty if the model is not in the store."""

    published: bool
    version: str
    reason: str
    checks: tuple[Check, ...]
    situation: Situation


def run(
    config: PublishConfig, *, dataset_dir: Path, chosen_dir: Path, report_dir: Path, receipt_dir: Path
) -> dict[str, float]:
    """Publish ``chosen_dir`` if it passes the gate, and write a receipt.

    The gate: the test accuracies of the model and of its export are at most ``max_test_drop`` below the teacher's and
    at most ``champion_tolerance`` below the best that champions reached on the same test split, and the objective is
    not worse than the champion's. A champion that was measured on another test split is measured again on this one.
    A model that computes the same as the champion changes nothing.

    Args:
        config: the store and the bounds of the gate.
        dataset_dir: the Dataset artifact of the report.
        chosen_dir: the evaluated Model artifact.
        report_dir: report.json and report.html.
        receipt_dir: receives receipt.json and version.json.

    Returns:
        ``published`` (1 or 0), the accuracies that the gate compared, ``bytes_kz``.

    Raises:
        ArtifactError: a missing or damaged artifact, or a report about another model or dataset.
        StoreError: the store cannot be reached, refuses or is full; the champion is unchanged.
    """
    store = open_store(config.store_uri)
    report = read_report(report_dir)
    verify_files(chosen_dir, read_description(chosen_dir)["files"], own=OWN_FILES)
    candidate = _candidate(report, chosen_dir, report_dir)
    record = _record(config, candidate, report, chosen_dir, dataset_dir)
    with new_directory(receipt_dir) as scratch:
        write_json(scratch / RECORD, record)
        files = {path.relative_to(chosen_dir).as_posix(): path for path in below(chosen_dir) if path.is_file()}
        files |= {REPORT: report_dir / REPORT, PAGE: report_dir / PAGE, RECORD: scratch / RECORD}
        outcome = publish(config, store, record, files, dataset_dir)
        write_json(scratch / RECEIPT, _receipt(store, record, outcome))
    return _metrics(record, outcome)


def publish(
    config: PublishConfig, store: Store, record: VersionRecord, files: Mapping[str, Path], dataset_dir: Path
) -> Outcome:
    """Publish the model if it passes the gate; concurrent publishers change the champion one after the other."""
    name = record["model_name"]
    for _ in range(ATTEMPTS):
        situation = _situation(store, record, dataset_dir)
        outcome = judge(config, record, situation)
        if not outcome.published:
            return outcome
        version = situation.same or version_id({key: sha256(path) for key, path in files.items()})
        prefix = version_prefix(name, version)
        manifest = None if situation.same else store.upload_files(prefix, files)
        with store.exclusive(f"{model_prefix(name)}/{CHAMPION}") as lease:
            if (read_champion(store, name), version_ids(store, name)) != (situation.champion, situation.versions):
                continue  # another publisher was faster, so the gate has changed
            if manifest:
                lease.check()
                store.commit(prefix, manifest)
            lease.check()
            write_champion(store, name, _promotion(record, version, outcome))
        return dataclasses.replace(outcome, version=version)
    raise StoreError(f"the champion of {name} changed {ATTEMPTS} times meanwhile; publish again when others are done.")


def judge(config: PublishConfig, record: VersionRecord, situation: Situation) -> Outcome:
    """Decide whether to publish the model, and why."""
    same, champion, reference = situation.same, situation.champion, situation.reference
    if champion and same == champion["version"]:
        reason = f"nothing new: version {same} computes the same and is the champion"
        return Outcome(False, same, reason, (), situation)
    checks = teacher_checks(config, record)
    if reference:
        checks += champion_checks(config, record, reference)
    failed = [check for check in checks if not check.holds]
    reason = "; ".join(check.sentence() for check in failed or checks)
    return Outcome(not failed, same, reason, tuple(checks), situation)


def _candidate(report: Report, chosen_dir: Path, report_dir: Path) -> Candidate:
    candidate = next(model for model in models(report) if model["name"] == report["chosen"])
    digest = model_digest(chosen_dir)
    if candidate["digest"] != digest:
        raise ArtifactError(
            f"{report_dir / REPORT} must describe the model in {chosen_dir} ({digest}), but describes"
            f" {candidate['digest']}."
        )
    if not (report_dir / PAGE).is_file():
        raise ArtifactError(f"{report_dir} must hold a file {PAGE}, but it is missing.")
    return candidate


def _record(
    config: PublishConfig, candidate: Candidate, report: Report, chosen_dir: Path, dataset_dir: Path
) -> VersionRecord:
    dataset = read_json(dataset_dir / "dataset.json", format_version=DATASET_FORMATS)
    for key, value in candidate["dataset"].items():
        if dataset.get(key) != value:
            raise ArtifactError(
                f"the report must be made on the dataset in {dataset_dir} ({key} {dataset.get(key)!r}),"
                f" but was made on {value!r}."
            )
    return {
        "format_version": FORMAT_VERSION,
        "model_name": config.model_name or derived_model_name(candidate["network"], dataset["name"]),
        "candidate": candidate["name"],
        "identity": directory_identity(chosen_dir),
        "model_digest": candidate["digest"],
        "dataset_digest": dataset_digest(dataset_dir),
        "test_digest": dataset["files"]["test.safetensors"],
        "dataset": dataset["name"],
        "classes": dataset["classes"],
        "image_shape": dataset["shape"],
        "network": candidate["network"],
        "steps": candidate["steps"],
        "validation_accuracy": candidate["validation_accuracy"],
        "test_accuracy": candidate["test_accuracy"],
        "onnx_test_accuracy": candidate["onnx_test_accuracy"],
        "teacher_test_accuracy": report["teacher"]["test_accuracy"],
        "parameters": candidate["parameters"],
        "nonzero_parameters": candidate["nonzero_parameters"],
        "macs": candidate["macs"],
        "bytes": candidate["bytes"],
        "latency_ms": candidate["latency_ms"],
        "machine": {"cpu": candidate["environment"]["cpu"], "cores": candidate["environment"]["cores"]},
    }


def _situation(store: Store, record: VersionRecord, dataset_dir: Path) -> Situation:
    name = record["model_name"]
    champion = read_champion(store, name)
    versions = read_versions(store, name)
    same = next((version.id for version in versions if version.record["identity"] == record["identity"]), "")
    known = {version.id: version for version in versions}
    reference = None
    if champion and champion["version"] != same:
        if champion["version"] not in known:
            raise ArtifactError(f"{store.address(model_prefix(name))} must hold champion {champion['version']}.")
        reference = _reference(store, record, champion, known[champion["version"]], dataset_dir)
    return Situation(sorted(known), same, champion, reference)


def _reference(
    store: Store, record: VersionRecord, champion: Champion, version: Version, dataset_dir: Path
) -> Reference:
    """Return the champion with its accuracy on the record's test split, measured if necessary."""
    known = version.record
    comparable = (known["image_shape"], known["classes"]) == (record["image_shape"], record["classes"])
    if champion["test_digest"] == record["test_digest"] or not comparable:
        return Reference(version.id, champion["reference_accuracy"], known)
    return Reference(version.id, measured_accuracy(store, record["model_name"], version.id, dataset_dir), known)


def measured_accuracy(store: Store, name: str, version: str, dataset_dir: Path) -> float:
    """Return the accuracy of a published version on the test split of ``dataset_dir``."""
    dataset = load_dataset(dataset_dir)
    with scratch_directory("publish") as scratch:
        directory = scratch / version
        store.download_directory(version_prefix(name, version), directory)
        logits_NK = predict(load_model(directory).module, dataset.test, dataset)
    return accuracy(logits_NK, dataset.test.labels)


def _promotion(record: VersionRecord, version: str, outcome: Outcome) -> Champion:
    champion, reference = outcome.situation.champion, outcome.situation.reference
    best = max(record["test_accuracy"], reference.test_accuracy) if reference else record["test_accuracy"]
    return {
        "format_version": FORMAT_VERSION,
        "version": version,
        "previous": champion["version"] if champion else "",
        "promoted": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "reason": outcome.reason,
        "test_digest": record["test_digest"],
        "reference_accuracy": best,
    }


def _receipt(store: Store, record: VersionRecord, outcome: Outcome) -> dict[str, Any]:
    name = record["model_name"]
    return {
        "format_version": FORMAT_VERSION,
        "published": outcome.published,
        "model_name": name,
        "version": outcome.version,
        "uri": store.address(version_prefix(name, outcome.version)) if outcome.version else "",
        "reason": outcome.reason,
        "checks": [dataclasses.asdict(check) for check in outcome.checks],
        "champion_before": outcome.situation.champion,
    }


def _metrics(record: VersionRecord, outcome: Outcome) -> dict[str, float]:
    metrics = {
        "published": float(outcome.published),
        "test_accuracy": record["test_accuracy"],
        "onnx_test_accuracy": record["onnx_test_accuracy"],
        "teacher_test_accuracy": record["teacher_test_accuracy"],
        "bytes_kz": float(record["bytes"]["kz"]),
    }
    if outcome.situation.reference:
        metrics["champion_test_accuracy"] = outcome.situation.reference.test_accuracy
    return metrics
