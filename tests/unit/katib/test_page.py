"""The page holds everything itself and nothing that can break out of it."""

import dataclasses
import json
import re

from kondense.katib import page
from kondense.katib.results import summary as summarize
from kondense.katib.spec import parse
from kondense.search.pick import read_pick
from kondense.search.run import Outcome, Run

from tests.support.browser import ask
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


def with_goals():
    """A summary of two objectives: t0 and t1 are the front, t2 breaks the bound, t3 has no accuracy."""
    document = experiment()
    goals = {"objectives": "maximize accuracy", "constraints": "loss <= 1"}
    document["spec"]["algorithm"]["algorithmSettings"] += [{"name": k, "value": v} for k, v in goals.items()]
    parsed = parse(document)
    run = Run(dataclasses.replace(parsed.search, pick=read_pick("accuracy >= 2", ("loss", "accuracy"))))
    for index, (loss, accuracy) in enumerate([("0.25", "0.5"), ("0.5", "0.75"), ("1.5", "0.9"), ("0.125", "nan")]):
        name = f"example-t{index}"
        trials = [{"name": name, "assignments": {"lr": "0.5", "units": "8", "kind": "a"}}]
        run.apply({"event": "suggested", "trials": trials, "settings": {}})
        ended = {"event": "finished", "name": name, "status": "succeeded", "reason": "", "time": 1.0}
        run.apply(ended | {"value": float(loss), "metrics": {"loss": loss, "accuracy": accuracy}})
    rest = {"outcome": Outcome.SUCCEEDED, "reason": "done", "best": run.best(), "finished": run.finished}
    return summarize(parsed.document, run.search, list(run.trials.values()), **rest)


def test_several_objectives_show_their_front(tmp_path):
    made = with_goals()
    assert made["front"] == ["example-t0", "example-t1"]
    assert made["pick"] == {"rule": "accuracy >= 2", "met": False}
    assert made["best"]["name"] == "example-t1"
    # Between the best and the worst of t0, t1 and t2: loss 0.25 to 1.5, accuracy 0.5 to 0.9.
    # t0 is worst in accuracy, t1 takes (1.5 - 0.5) / 1.25 of the loss and (0.75 - 0.5) / 0.4 of the accuracy.
    assert [entry["hypervolume"] for entry in made["finished"]] == [0.0, 0.5, 0.5, 0.5]
    page.write(tmp_path / "report.html", made)
    script = """
      const all = (name) => document.querySelectorAll("#front-0 " + name).length;
      answer.marks = [all(".front"), all(".behind"), all(".broken"), all(".ring"), all(".stair"), all(".bound")];
      answer.table = [...document.querySelectorAll("#front-table tbody tr")].map((row) => row.cells[0].textContent);
      answer.note = document.getElementById("front-note").textContent;
      answer.heading = document.getElementById("incumbent-heading").textContent;
      answer.tooWide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
    """
    answer = ask(tmp_path / "report.html", script, tmp_path / "chromium", width=480)
    assert answer["problems"] == []
    assert answer["marks"] == [2, 0, 1, 1, 1, 1]
    assert answer["table"] == ["t0", "t1"]
    assert "No trial meets accuracy >= 2" in answer["note"] and "Red squares break loss <= 1" in answer["note"]
    assert (answer["heading"], answer["tooWide"]) == ("Hypervolume", False)


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
