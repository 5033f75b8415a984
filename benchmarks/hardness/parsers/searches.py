"""Searches: journals, ledgers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.hardness.parsers.parser import REPOSITORY, Parser, as_json, written


def _document() -> Any:
    from kondense.katib.spec import load

    return load(REPOSITORY / "manifests/experiments/random.yaml").document


def _search() -> Any:
    from kondense.katib.document import read_search

    return read_search(_document())


def _population() -> Any:
    from kondense.katib.document import read_search

    document = _document()
    settings = {"suggestion_trial_dir": "/files", "n_population": "5", "truncation_threshold": "0.4"}
    listed = [{"name": name, "value": value} for name, value in settings.items()]
    document["spec"]["algorithm"] = {"algorithmName": "pbt", "algorithmSettings": listed}
    return read_search(document)


def _journals(search: Callable[[], Any], trials: int) -> Callable[[Path], list[bytes]]:
    def make(scratch: Path) -> list[bytes]:
        from kondense.search.journal import Journal
        from kondense.search.run import Run

        with Journal(scratch / "made.jsonl", experiment="x") as journal:
            run = Run(search(), journal)
            while len(run.finished) < trials:
                for trial in run.startable(3):
                    run.record("started", name=trial.name)
                    value = {"value": 0.5, "metrics": {"a": "0.5"}, "curve": [0.1, 0.5]}
                    run.record("finished", name=trial.name, status="succeeded", reason="", **value)
        return [(scratch / "made.jsonl").read_bytes()]

    return make


def _read_journal(search: Callable[[], Any]) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        from kondense.search.journal import Journal
        from kondense.search.run import Run

        with Journal(path, experiment="x") as journal:
            run = Run(search(), journal)
            run.startable(2)
            run.outcome()
            return run.headline()

    return read


def _trials(_: Path) -> list[bytes]:
    from tests.support.fake_kubernetes import make_trial

    values = {"lr": "0.1", "momentum": "0.9"}
    metrics = {"validation_accuracy": "0.9", "latency_ms": "0.1"}
    ends = (("Succeeded", metrics), ("Failed", None), ("Running", None), ("EarlyStopped", metrics))
    return as_json([make_trial("e", f"t{number}", values, *end) for number, end in enumerate(ends)])


def _read_trials(content: bytes, _: Path) -> object:
    from kondense.json_text import json_value
    from kondense.katib.results import summary
    from kondense.katib_search.experiment import Plan
    from kondense.katib_search.trials import best_trial, ended, in_order_of_ending, read_trials
    from kondense.search.run import Outcome

    objects = json_value(content, "trials")
    plan = Plan(_document())
    trials = read_trials(objects if isinstance(objects, list) else [objects], plan)
    finished, best = in_order_of_ending(trials), best_trial(trials, plan.search)
    rest: dict[str, Any] = {"best": best, "finished": finished, "baseline": None}
    return summary(plan.body, plan.search, trials, outcome=Outcome.SUCCEEDED, reason="", **rest), [
        ended(each) for each in objects
    ]


def _ledgers(_: Path) -> list[bytes]:
    from kondense.search.ledger import Ledger

    ledger = Ledger()
    for bracket in range(2):
        ledger.start_bracket()
        for number in range(3):
            ledger.add(bracket, {"x": str(number)})
        ledger.promote(bracket, 1, 1)
    return [ledger.text().encode()]


def _read_ledger(content: bytes, _: Path) -> None:
    from kondense.search.history import History
    from kondense.search.state import ExperimentState

    text = content.decode(errors="replace")
    ExperimentState(History((), text, "minimize", "x", 10)).ledger.text()


PARSERS = (
    Parser("journal of a search", "lines", _journals(_search, 3), written("a.jsonl", _read_journal(_search)), 0.3),
    Parser(
        "journal of a population",
        "lines",
        _journals(_population, 12),
        written("b.jsonl", _read_journal(_population)),
        0.2,
    ),
    Parser("Trials of Katib", "json", _trials, _read_trials, 0.5),
    Parser("ledger of a search", "text", _ledgers, _read_ledger, 2),
)
