import json

import pytest
from kondense.artifacts.failed import write_failed
from kondense.artifacts.report import read_report
from kondense.errors import ShortfallError
from kondense.files import ArtifactError, file_digests
from kondense.report.config import ReportConfig
from kondense.report.stage import run
from kondense.verdict.config import VerdictConfig
from kondense.verdict.stage import run as give_verdict

from tests.support.report_makers import make_evaluations, write_candidates


@pytest.fixture
def places(tmp_path):
    directories = write_candidates(tmp_path / "candidates", make_evaluations())
    return {"candidate_dirs": directories, "report_dir": tmp_path / "report", "chosen_dir": tmp_path / "chosen"}


def test_report_page_and_a_copy_of_the_chosen_model(places):
    metrics = run(ReportConfig(title="A run"), **places)
    report = read_report(places["report_dir"])
    assert report["chosen"] == "sparse-packed"
    assert report["title"] == "A run"
    assert file_digests(places["chosen_dir"]) == file_digests(places["candidate_dirs"][-1])
    assert (places["report_dir"] / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert metrics["bytes"] == 22_411
    assert metrics["accuracy_percent"] == pytest.approx(100 * report["candidates"][-1]["test_accuracy"])


def test_report_json_holds_the_keys_that_the_design_names(places):
    run(ReportConfig(), **places)
    report = json.loads((places["report_dir"] / "report.json").read_text(encoding="utf-8"))
    assert {"format_version", "dataset", "network", "teacher", "candidates", "chosen", "reason"} <= report.keys()
    assert {"lineage", "environment"} <= report.keys()
    for model in [report["teacher"], *report["candidates"]]:
        assert {"name", "steps", "test_accuracy", "parameters", "nonzero_parameters", "macs"} <= model.keys()
        assert model["bytes"].keys() == {"fp32", "stored", "kz", "onnx"}
        assert model["latency_ms"]["batch_1"].keys() == model["latency_ms"]["batch_64"].keys() == {"median", "p95"}


def test_the_same_inputs_give_the_same_bytes(places):
    run(ReportConfig(), **places)
    first = file_digests(places["report_dir"])
    run(ReportConfig(), **places)
    assert file_digests(places["report_dir"]) == first


def test_a_damaged_candidate_is_named_and_nothing_is_written(places):
    (places["candidate_dirs"][3] / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=r"candidates/3/weights\.safetensors must have sha256"):
        run(ReportConfig(), **places)
    assert not places["report_dir"].exists()
    assert not places["chosen_dir"].exists()


def test_no_candidate_at_all(places):
    with pytest.raises(ValueError, match="candidate_dirs must hold at least the teacher"):
        run(ReportConfig(), **{**places, "candidate_dirs": []})


@pytest.mark.parametrize("value", [-0.01, 1.0, float("nan")])
def test_a_drop_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match="max_validation_drop must be"):
        ReportConfig(max_validation_drop=value)


def test_an_unknown_objective_lists_the_right_ones():
    with pytest.raises(ValueError, match="objective must be one of balanced, bytes, latency, but got 'speed'"):
        ReportConfig(objective="speed")


def test_candidates_that_failed_are_told_and_the_others_compared(places, tmp_path):
    directories = places["candidate_dirs"]
    failed = {"name": "late", "step": "quantize", "reason": "calibration images must not be equal <all>."}
    write_failed(tmp_path / "late", failed)
    run(ReportConfig(), **{**places, "candidate_dirs": [*directories[:3], tmp_path / "late"]})
    report = read_report(places["report_dir"])
    assert report["failed"] == [failed]
    assert [each["name"] for each in report["candidates"]] == ["quantized", "pruned"]
    assert report["reason"].endswith("1 more could not be made or measured: late.")
    page = (places["report_dir"] / "report.html").read_text(encoding="utf-8")
    assert "calibration images must not be equal &lt;all&gt;." in page
    with pytest.raises(ShortfallError, match="late failed in quantize: calibration"):
        give_verdict(VerdictConfig(), report_dir=places["report_dir"])
    assert give_verdict(VerdictConfig(fail=False), report_dir=places["report_dir"]) == {"shortcomings": 1.0}


def test_without_a_teacher_there_is_nothing_to_compare(places, tmp_path):
    write_failed(tmp_path / "failed", {"name": "teacher", "step": "evaluate", "reason": "no luck."})
    with pytest.raises(ValueError, match=r"at least the teacher must be measured, but: no luck\."):
        run(ReportConfig(), **{**places, "candidate_dirs": [tmp_path / "failed"]})


def test_a_shortfall_is_a_note_and_the_verdicts_error(places, tmp_path):
    evaluations = make_evaluations()[:2]
    text = "sparsity 0.9 of the macs was not reached: the closest has 0.8 (round_to 8)."
    evaluations[1]["lineage"][-1]["details"]["shortfall"] = text
    run(ReportConfig(), **{**places, "candidate_dirs": write_candidates(tmp_path / "short", evaluations)})
    assert f"quantized: quantize fell short of the request: {text}" in read_report(places["report_dir"])["notes"]
    with pytest.raises(ShortfallError, match="quantized falls short: sparsity 0.9"):
        give_verdict(VerdictConfig(), report_dir=places["report_dir"])
