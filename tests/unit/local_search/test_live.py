"""What a person sees of a run."""

import io

from kondense.search.history import Status
from kondense.search.run import Outcome
from kondense_pipelines.local_search.live import Display
from rich.console import Console

from tests.support.search_example import make_run


def run():
    result = make_run(("succeeded", 0.5, 1), ("failed", None, 3), ("succeeded", 0.25, 9), resource_name="epochs")
    result.trials["t1"].reason = "exit status 1; its last line: [/] not markup"
    return result


def test_plain_lines_where_there_is_no_terminal(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    display = Display(console)
    display.start(run())
    display.update(run())
    display.finished(run(), run().trials["t1"])
    display.stop(run())
    display.ended(run(), Outcome.SUCCEEDED, "all 6 trials have ended", tmp_path / "report.html")
    first, second, third, fourth, *rest = console.file.getvalue().splitlines()
    assert first == "example (hyperband): 3/6 trials, 1 failed, best loss=0.25 at 9 epochs"
    assert second == f"{first}: t1 failed in 2.5 s (exit status 1; its last line: [/] not markup)"
    assert third == "Succeeded: all 6 trials have ended."
    assert fourth == "Best: t2 succeeded loss=0.25 at 9 epochs in 2.5 s"
    assert rest[-1].endswith("report.html")


def test_a_table_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=40)
    display = Display(console)
    display.start(run())
    display.update(run())
    display.stop(run())
    text = console.file.getvalue()
    assert "epochs" in text and "succeeded" in text and "[/] not" in text
    assert "lr" in text  # the hyperparameters, too


def test_a_running_trial_and_one_without_value():
    running = run()
    running.trials["t0"].status = Status.RUNNING
    assert "1 running" in running.headline()
    assert running.search.trial_line(running.trials["t1"]).startswith("t1 failed")


def test_the_table_shows_hyperparameters_in_four_digits():
    shown = make_run(("succeeded", 0.5, 1))
    shown.trials["t0"].assignments = {"lr": "0.012345678", "epochs": "1000000"}
    console = Console(file=io.StringIO(), force_terminal=True, width=160, height=40)
    display = Display(console)
    display.start(shown)
    display.stop(shown)
    text = console.file.getvalue()
    assert "0.01235" in text and "1000000" in text


def test_the_table_and_the_headline_show_several_objectives():
    shown = make_run(("succeeded", 0.5, 1), ("succeeded", 0.25, 1), settings={"objectives": "minimize size"})
    for name, size in (("t0", "100"), ("t1", "300")):
        shown.trials[name].metrics = {"size": size}
    console = Console(file=io.StringIO(), force_terminal=True, width=160, height=40)
    display = Display(console)
    display.start(shown)
    display.stop(shown)
    text = console.file.getvalue()
    assert "size" in text and "300" in text
    assert shown.headline() == "example (random): 2/6 trials, front of 2, best loss=0.25 size=300"
