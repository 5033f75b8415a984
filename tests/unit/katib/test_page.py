"""The page holds everything itself and nothing that can break out of it."""

import json
import re

from kondense.katib import page
from kondense.katib.results import summary as summarize
from kondense.katib.spec import parse
from kondense.search.run import Outcome, Run

from tests.support.experiment_example import experiment

SVG = "http://www.w3.org/2000/svg"


def summary(**changes):
    parsed = parse(experiment())
    run = Run(parsed.search)
    assignments = {"lr": "0.5", "units": "8", "kind": "<b>a</b>"}
    for index in range(3):
        trials = [{"name": f"example-t{index}", "assignments": assignments}]
        run.apply({"event": "suggested", "trials": trials, "settings": {}})
    common = {"event": "finished", "reason": "", "time": 1.0, "value": None}
    run.apply({**common, "name": "example-t0", "status": "succeeded", "metrics": {"loss": "0.25"}, "value": 0.25})
    reason = "</script><script>alert(1)</script>"
    run.apply({**common, "name": "example-t1", "status": "failed", "reason": reason})
    trials = {"best": run.best(), "finished": run.finished}
    made = summarize(
        parsed.document, run.search, list(run.trials.values()), outcome=Outcome.SUCCEEDED, reason="done", **trials
    )
    return {**made, **changes}


def test_nothing_is_fetched():
    text = page.render(summary())
    assert set(re.findall(r"https?://[^\"' )]+", text)) == {SVG}
    assert not re.search(r"<(link|img|iframe)\b|\bsrc=|@import|url\(|fetch\(|XMLHttpRequest", text)


def test_the_data_is_the_summary():
    whole = summary()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.render(whole), re.DOTALL)
    assert json.loads(data[1]) == whole


def test_texts_of_a_trial_stay_texts():
    text = page.render(summary())
    assert "<script>alert" not in text
    assert "&lt;b&gt;a&lt;/b&gt;" in text
    assert text.count("<script") == text.count("</script>") == 2


def test_every_trial_is_in_the_table_best_first():
    rows = re.findall(r"<tr><td>(example-t\d)", page.render(summary()))
    assert rows == ["example-t0", "example-t1", "example-t2"]


def test_a_run_without_trials_is_a_page_too(tmp_path):
    page.write(tmp_path / "report.html", summary(trials=[], finished=[], best=None))
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_the_address_of_katibs_page():
    path = "/katib/experiment/team/search-1"
    for base in ("https://kf.example", "https://kf.example/", "https://kf.example/katib/", "https://kf.example/katib"):
        assert page.address(base, "team", "search-1") == f"https://kf.example{path}"
    assert page.address("https://kf.example/_/katib", "team", "search-1") == f"https://kf.example/_{path}"
    assert path in page.address("", "team", "search-1")
