from pathlib import Path

import pytest
from kondense.preflight.request import POSSIBLE, Check
from kondense_pipelines.local.compress import collect, local_paths, slug, timings
from kondense_pipelines.local.steps import StepResult
from kondense_pipelines.paths import new_run_dir, point_latest
from kondense_pipelines.preflight import Preflight


def test_only_data_of_this_machine_becomes_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    given = {"dataset_source": "images", "network_import_uri": ""}
    assert local_paths(given) == {"dataset_source": tmp_path / "images"}
    assert local_paths({"dataset_source": "s3://bucket/images", "network_import_uri": "nowhere"}) == {}


def test_other_code_has_other_checkpoints() -> None:
    assert slug("sources a") == slug("sources a") != slug("sources b")


def test_results_are_copied_and_replace_those_of_an_earlier_run(tmp_path: Path) -> None:
    for content in ("one", "two"):
        source = tmp_path / content
        for name in ("candidate", "chosen", "report"):
            (source / name).mkdir(parents=True)
        (source / "candidate" / "model.json").write_text(content)
        (source / "chosen" / "model.json").write_text(content)
        (source / "report" / "report.json").write_text(content)
        (source / "report" / "report.html").write_text(content)
        results = {
            "evaluate teacher": StepResult("evaluate teacher", False, 1.0, {"candidate": source / "candidate"}),
            "report": StepResult("report", True, 0.1, {n: source / n for n in ("chosen", "report")}),
            "train teacher": StepResult("train teacher", False, 9.0, {}, memory_bytes=800),
        }
        page = collect(results, tmp_path / "out")
    assert page == tmp_path / "out" / "report.html"
    files = {str(path.relative_to(tmp_path / "out")): path.read_text() for path in (tmp_path / "out").rglob("*.*")}
    names = ("candidates/teacher/model.json", "chosen/model.json", "report.json", "report.html")
    assert files == dict.fromkeys(names, "two")
    found = Preflight([Check("network", POSSIBLE, run_s=8.0, memory_bytes=700), Check("report", POSSIBLE)], 1.0)
    assert timings(results, 2.0, found) == {
        "seconds": 2.0,
        "steps": [
            {"name": "evaluate teacher", "reused": False, "seconds": 1.0},
            {"name": "report", "reused": True, "seconds": 0.1},
            {
                "name": "train teacher",
                "reused": False,
                "seconds": 9.0,
                "peak_memory_bytes": 800,
                "estimated": {"seconds": 8.0, "peak_memory_bytes": 700},
            },
        ],
    }


def test_latest_points_to_the_newest_of_the_runs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = new_run_dir()
    point_latest(first)
    second = new_run_dir()
    assert first != second
    point_latest(second)
    point_latest(tmp_path / "elsewhere")
    assert (tmp_path / "runs" / "latest").resolve() == second.resolve()
