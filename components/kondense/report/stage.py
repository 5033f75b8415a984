"""Compare the candidates, choose one, and write report.json and the page."""

from collections.abc import Sequence
from pathlib import Path

from kondense.artifacts.comparison import compared
from kondense.artifacts.failed import read_failed
from kondense.artifacts.identity import OWN_FILES
from kondense.artifacts.lineage import stage_record
from kondense.artifacts.model import model_digest, read_description
from kondense.artifacts.report import PAGE, REPORT, Report, models, read_evaluation, report_bytes
from kondense.errors import InputError
from kondense.files import copy_directory, new_directory, verify_files
from kondense.report.config import ReportConfig
from kondense.report.document import build_report
from kondense.report.page import render


def run(
    config: ReportConfig, *, candidate_dirs: Sequence[Path], report_dir: Path, chosen_dir: Path
) -> dict[str, float]:
    """Write the report of the evaluated candidates and a copy of the chosen one.

    Args:
        config: bound and objective of the choice.
        candidate_dirs: Model artifacts with an evaluation.json, the teacher's first; those with a failed.json instead
            are told in the report.
        report_dir: receives report.json and report.html.
        chosen_dir: receives a copy of the chosen candidate.

    Returns:
        The chosen candidate's figures, named as in ``kondense.artifacts.comparison``.

    Raises:
        InputError: no candidate.
        ArtifactError: a missing or damaged artifact, or candidates that cannot be compared.
    """
    if not candidate_dirs:
        raise InputError("candidate_dirs must hold at least the teacher, but got 0 directories.")
    failures = {directory: read_failed(directory) for directory in candidate_dirs}
    failed = [each for each in failures.values() if each]
    candidate_dirs = [directory for directory in candidate_dirs if not failures[directory]]
    if not candidate_dirs:
        raise InputError(f"at least the teacher must be measured, but: {failed[0]['reason']}")
    for directory in candidate_dirs:
        verify_files(directory, read_description(directory)["files"], own=OWN_FILES)
    evaluations = [read_evaluation(directory) for directory in candidate_dirs]
    digests = [model_digest(directory) for directory in candidate_dirs]
    inputs = {evaluation["name"]: digest for evaluation, digest in zip(evaluations, digests, strict=True)}
    report = build_report(
        evaluations,
        digests,
        title=config.title,
        objective=config.objective,
        max_validation_drop=config.max_validation_drop,
        failed=failed,
        note=config.note,
        record=stage_record("report", config, inputs=inputs, metrics={}, summary=f"report {config.objective}"),
    )
    names = [evaluation["name"] for evaluation in evaluations]
    with new_directory(chosen_dir) as scratch:
        copy_directory(candidate_dirs[names.index(report["chosen"])], scratch, hidden=False)
    with new_directory(report_dir) as scratch:
        (scratch / REPORT).write_bytes(report_bytes(report))
        (scratch / PAGE).write_text(render(report), encoding="utf-8")
    return summarise(report)


def summarise(report: Report) -> dict[str, float]:
    """Return the figures for the comparison of runs: the chosen model's."""
    chosen = next(model for model in models(report) if model["name"] == report["chosen"])
    return compared(chosen, report["teacher"])
