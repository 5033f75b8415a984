"""Reports: failures, evaluations, reports."""

from pathlib import Path
from typing import Any

from benchmarks.hardness.parsers.parser import Parser, as_json, written

RECORD: dict[str, Any] = {
    "stage": "report", "summary": "report", "config": {}, "inputs": {}, "metrics": {}, "curves": [], "details": {},
    "versions": {},
}  # fmt: skip


def _failures(_: Path) -> list[bytes]:
    return as_json({"format_version": 1, "name": "pruned", "step": "prune", "reason": "too small", "passed_on": True})


def _read_failure(path: Path) -> object:
    from kondense.artifacts.failed import read_failed
    from kondense.artifacts.metadata import metadata_of

    read_failed(path.parent)
    return metadata_of(path.parent)


def _evaluations(_: Path) -> list[bytes]:
    from tests.support.report_makers import make_evaluations

    return as_json(*make_evaluations()[:2])


def _read_evaluation(path: Path) -> object:
    from kondense.artifacts.report import read_evaluation
    from kondense.report.document import build_report
    from kondense.report.page import render

    from tests.support.report_makers import make_evaluations

    evaluation = read_evaluation(path.parent)
    teacher = make_evaluations()[0]
    others = [teacher, evaluation] if evaluation["name"] != teacher["name"] else [evaluation]
    report = build_report(
        others, ["0" * 64] * len(others), title="t", objective="bytes", max_validation_drop=0.01, record=RECORD
    )
    return render(report)


def _reports(_: Path) -> list[bytes]:
    from kondense.report.document import build_report

    from tests.support.report_makers import make_evaluations

    made = make_evaluations()[:3]
    return as_json(
        build_report(made, ["0" * 64] * 3, title="t", objective="bytes", max_validation_drop=0.01, record=RECORD)
    )


def _read_report(path: Path) -> object:
    from kondense.artifacts.metadata import metadata_of
    from kondense.artifacts.report import read_report, shortcomings
    from kondense.report.page import render

    report = read_report(path.parent)
    shortcomings(report)
    metadata_of(path.parent)
    return render(report)


PARSERS = (
    Parser("failed.json", "json", _failures, written("f/failed.json", _read_failure), 2),
    Parser("evaluation.json", "json", _evaluations, written("e/evaluation.json", _read_evaluation), 0.5),
    Parser("report.json", "json", _reports, written("r/report.json", _read_report), 0.5),
)
