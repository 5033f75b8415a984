"""The configuration that a local run holds the best one against."""

import io
import json

import pytest
from kondense.katib.spec import ExperimentError
from kondense_pipelines.local_search.baseline import ANNOTATION
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.runner import run
from rich.console import Console

from tests.support.experiment_example import experiment, write


def annotated(text):
    document = experiment()
    document["metadata"]["annotations"] = {ANNOTATION: text}
    return document


def start(document, tmp_path):
    told = io.StringIO()
    result = run(write(document, tmp_path), tmp_path / "out", display=Display(Console(file=told, width=200)))
    return result, json.loads((tmp_path / "out" / "results.json").read_text()), told.getvalue()


def test_the_baseline_runs_once_after_the_search_and_takes_no_part_in_it(tmp_path):
    result, summary, told = start(annotated("lr=0.05, units=8, kind=a"), tmp_path)
    assert result.trials == len(summary["trials"]) == len(summary["finished"]) == 6
    assert summary["baseline"]["assignments"] == {"lr": "0.05", "units": "8", "kind": "a"}
    assert summary["baseline"]["value"] == 0.05
    assert summary["best"]["name"] != summary["baseline"]["name"]
    difference = summary["best"]["value"] - 0.05
    assert f"the difference of the best is {difference:+.6g}" in told
    again, unchanged, _ = start(annotated("lr=0.05, units=8, kind=a"), tmp_path)
    assert again.trials == 6
    assert unchanged["baseline"]["started"] == summary["baseline"]["started"]


def test_without_the_annotation_there_is_no_baseline(tmp_path):
    _, summary, told = start(experiment(), tmp_path)
    assert summary["baseline"] is None
    assert "Baseline" not in told


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("lr=0.05, decay=1", "must be name=value for each of lr, units, kind"),
        ("", "must be name=value for each of lr"),
        ("lr=0.05, units=8, kind=c", "kind must be one of a, b"),
        ("lr=fast, units=8, kind=a", "must be a finite number, but got 'fast'"),
    ],
)
def test_a_wrong_baseline_is_refused_before_any_trial(tmp_path, text, rule):
    with pytest.raises(ExperimentError, match=rule):
        start(annotated(text), tmp_path)
    assert not (tmp_path / "out").exists()
