"""Whole local runs of small Experiments, their faults and their continuation."""

import collections
import contextlib
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kondense.katib.spec import ExperimentError
from kondense.search.journal import JournalError
from kondense.search.run import Outcome
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.runner import run
from rich.console import Console

from tests.support.experiment_example import container, experiment, scripted, write

FAST = 'echo "loss=$LR"'


def start(document, tmp_path, *, parallel=None, overrides=None, **options):
    display = Display(options.pop("console", Console(file=io.StringIO())))
    return run(write(document, tmp_path), tmp_path / "out", parallel, overrides=overrides, display=display, **options)


def results(tmp_path):
    return json.loads((tmp_path / "out" / "results.json").read_text())


def events(tmp_path, kind):
    lines = (tmp_path / "out" / "journal.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def alive(marker: str) -> list[str]:
    """Return the command lines of the running processes that carry a marker."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if marker in words and "pytest" not in words:
                found.append(words)
    return found


def test_a_run_to_its_end(tmp_path):
    result = start(experiment(), tmp_path)
    assert (result.outcome, result.exit_code, result.trials) == (Outcome.SUCCEEDED, 0, 6)
    summary = results(tmp_path)
    assert summary["outcome"] == "Succeeded"
    assert {trial["status"] for trial in summary["trials"]} == {"succeeded"}
    values = [float(trial["assignments"]["lr"]) for trial in summary["trials"]]
    assert result.best.value == min(values) == summary["best"]["value"]
    assert summary["trials"][0]["metrics"] == {"loss": summary["trials"][0]["assignments"]["lr"], "accuracy": "0.5"}
    assert result.page_file.read_text().startswith("<!doctype html>")
    log = (tmp_path / "out" / "trials" / summary["trials"][0]["name"] / "output.log").read_text()
    assert log.startswith("loss=")


def test_at_most_parallel_trials_run_at_a_time(tmp_path):
    script = 'touch "$DIR/$NAME"; ls "$DIR" | wc -l >> "$COUNTS"; sleep 0.2; rm "$DIR/$NAME"; echo "loss=$LR"'
    (tmp_path / "running").mkdir()
    overrides = {"DIR": str(tmp_path / "running"), "COUNTS": str(tmp_path / "counts")}
    start(scripted(script, maxTrialCount=7), tmp_path, parallel=3, overrides=overrides)
    counts = [int(line) for line in (tmp_path / "counts").read_text().split()]
    assert len(counts) == 7
    assert max(counts) <= 3


def test_the_goal_stops_the_run_and_the_running_trials(tmp_path):
    script = 'case "$NAME" in *c0-*) echo loss=0.01;; *) exec sleep 60.71;; esac'
    document = scripted(script, parallelTrialCount=3)
    document["spec"]["objective"]["goal"] = 0.05
    result = start(document, tmp_path)
    assert (result.outcome, result.reason) == (Outcome.SUCCEEDED, "the goal 0.05 is reached")
    statuses = collections.Counter(trial["status"] for trial in results(tmp_path)["trials"])
    assert statuses == {"succeeded": 1, "killed": 2}
    assert alive("60.71") == []


def test_too_many_failures_fail_the_run(tmp_path):
    result = start(scripted("echo no luck; exit 3", maxFailedTrialCount=3, parallelTrialCount=1), tmp_path)
    assert (result.outcome, result.exit_code, result.trials, result.best) == (Outcome.FAILED, 1, 3, None)
    assert results(tmp_path)["trials"][0]["reason"] == "exit status 3; its last line: no luck"


FAULTS = {  # in a container's arguments, $$ stands for one $
    "prints nothing": ("true", "metrics_unavailable", "the trial reported no loss", None),
    "another metric": ("echo accuracy=1", "metrics_unavailable", "the trial reported no loss", None),
    "nan": ("echo loss=nan", "succeeded", "loss is no finite number: ''", None),
    "nan and a number": ("echo loss=0.5; echo loss=nan", "succeeded", "", 0.5),
    "two values": ("echo loss=0.5; echo loss=0.25; echo loss=0.75", "succeeded", "", 0.25),
    "on the error stream": ("echo loss=0.5 >&2", "succeeded", "", 0.5),
    "exit 137": ("exit 137", "failed", "exit status 137: killed (SIGKILL), usually because memory ran out", None),
    "killed": ("kill -9 $$$$", "failed", "exit status 137: killed (SIGKILL), usually because memory ran out", None),
    "aborted": ("kill -6 $$$$", "failed", "exit status 134: ended by SIGABRT", None),
    "a value, then a failure": ("echo loss=0.5; exit 1", "failed", "exit status 1; its last line: loss=0.5", None),
    "bytes that are no text": (r"printf '\377\376 loss=0.5\n'", "succeeded", "", 0.5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_trial_may_do(tmp_path, fault):
    script, status, reason, value = FAULTS[fault]
    start(scripted(script, maxTrialCount=1, parallelTrialCount=1, maxFailedTrialCount=1), tmp_path)
    (trial,) = results(tmp_path)["trials"]
    assert (trial["status"], trial["value"]) == (status, value)
    assert trial["reason"] == reason


def test_strategies_pick_the_value(tmp_path):
    document = scripted("echo loss=0.5; echo loss=0.25; echo loss=0.75", maxTrialCount=2)
    document["spec"]["objective"]["metricStrategies"] = [{"name": "loss", "value": "latest"}]
    assert start(document, tmp_path).best.value == 0.75


def test_a_command_that_does_not_exist(tmp_path):
    document = scripted("", maxTrialCount=1, parallelTrialCount=1, maxFailedTrialCount=1)
    container(document)["command"] = ["no-such-program"]
    assert start(document, tmp_path).outcome is Outcome.FAILED
    assert "cannot start 'no-such-program'" in results(tmp_path)["trials"][0]["reason"]


def test_a_trial_past_its_deadline_dies_with_its_children(tmp_path):
    script = "trap '' TERM; sleep 60.72 & wait"
    document = scripted(script, maxTrialCount=1, parallelTrialCount=1, maxFailedTrialCount=1)
    document["spec"]["trialTemplate"]["trialSpec"]["spec"]["activeDeadlineSeconds"] = 1
    start(document, tmp_path)
    (trial,) = results(tmp_path)["trials"]
    assert trial["status"] == "failed"
    assert trial["reason"] == "DeadlineExceeded: ran longer than activeDeadlineSeconds=1"
    assert alive("60.72") == []


def test_what_a_trial_leaves_running_ends_with_it(tmp_path):
    start(scripted("sleep 60.73 & echo loss=1", maxTrialCount=1, parallelTrialCount=1), tmp_path)
    assert alive("60.73") == []


def test_a_jobs_retries(tmp_path):
    script = 'echo x >> "$TRIES"; test $(wc -l < "$TRIES") -ge 3 && echo loss=1'
    document = scripted(script, maxTrialCount=1, parallelTrialCount=1)
    document["spec"]["trialTemplate"]["trialSpec"]["spec"]["backoffLimit"] = 2
    result = start(document, tmp_path, overrides={"TRIES": str(tmp_path / "tries")})
    assert result.best.value == 1.0


def test_a_metrics_file(tmp_path):
    document = scripted('echo "{\\"loss\\": \\"$LR\\"}" >> /var/log/katib/metrics.log; echo not read: loss=7')
    file = {"fileSystemPath": {"format": "JSON"}}
    document["spec"]["metricsCollectorSpec"] = {"collector": {"kind": "File"}, "source": file}
    start(document, tmp_path)
    assert all(trial["value"] == float(trial["assignments"]["lr"]) for trial in results(tmp_path)["trials"])


def test_push_is_read_like_standard_output(tmp_path):
    document = scripted(FAST)
    document["spec"]["metricsCollectorSpec"] = {"collector": {"kind": "Push"}}
    assert start(document, tmp_path).best.value is not None


def test_trials_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert start(scripted("echo loss=$OMP_NUM_THREADS", maxTrialCount=3), tmp_path, parallel=3).best.value == 2.0
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert start(scripted("echo loss=$OMP_NUM_THREADS", maxTrialCount=6), tmp_path, parallel=3).trials == 6
    assert results(tmp_path)["trials"][-1]["value"] == 5.0


def test_a_relative_path_is_beside_the_file(tmp_path):
    (tmp_path / "trial.sh").write_text(FAST)
    document = scripted("")
    container(document)["command"] = ["sh", "trial.sh"]
    container(document).pop("args", None)
    assert start(document, tmp_path).best.value is not None


def test_a_broken_experiment_starts_nothing(tmp_path):
    with pytest.raises(ExperimentError, match="maxTrialCount"):
        start(scripted(FAST, maxTrialCount=0), tmp_path)
    assert not (tmp_path / "out").exists()


def test_parallel_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="parallel must be at least 1, but got 0"):
        start(experiment(), tmp_path, parallel=0)


def test_the_search_does_not_depend_on_the_runner(tmp_path):
    """The same file proposes the same trials as the suggestion service does."""
    start(experiment(), tmp_path, parallel=1)
    first = [trial["assignments"] for trial in results(tmp_path)["trials"]]
    (tmp_path / "other").mkdir()
    start(experiment(), tmp_path / "other", parallel=5)
    assert [trial["assignments"] for trial in results(tmp_path / "other")["trials"]] == first


def test_an_ended_run_is_not_repeated(tmp_path):
    start(experiment(), tmp_path)
    before = (tmp_path / "out" / "journal.jsonl").read_bytes()
    assert start(experiment(), tmp_path).outcome is Outcome.SUCCEEDED
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == before


def test_a_larger_count_continues_an_ended_run(tmp_path):
    start(experiment(), tmp_path)
    document = experiment()
    document["spec"]["maxTrialCount"] = 9
    assert start(document, tmp_path).trials == 9
    names = [event["name"] for event in events(tmp_path, "started")]
    assert len(names) == len(set(names)) == 9


def test_another_experiment_does_not_continue_a_run(tmp_path):
    start(experiment(), tmp_path)
    with pytest.raises(JournalError, match="must belong to this search"):
        start(scripted(FAST), tmp_path)


RUNNER = """
import os, resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it, nohup's SIGHUP
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from kondense_pipelines.local_search.runner import run
if "LIMIT" in os.environ:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LIMIT"]), resource.RLIM_INFINITY))
code = run(Path(sys.argv[1]), Path(sys.argv[2])).exit_code
assert "torch" not in sys.modules
sys.exit(code)
"""


def launch(document, tmp_path, limit=None):
    command = [sys.executable, "-c", RUNNER, str(write(document, tmp_path)), str(tmp_path / "out")]
    environment = {**os.environ, "RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(Path(__file__).parents[3])}
    environment |= {} if limit is None else {"LIMIT": str(limit)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finished(tmp_path):
    journal = tmp_path / "out" / "journal.jsonl"
    return journal.read_text().count('"finished"') if journal.exists() else 0


def test_a_killed_run_continues_without_repeating_a_finished_trial(tmp_path):
    script = 'sleep 0.1; echo "$NAME" >> "$RUNS"; echo "loss=$LR"'
    document = scripted(script, maxTrialCount=18, maxFailedTrialCount=18, parallelTrialCount=3)
    document["spec"]["parameters"][1]["feasibleSpace"]["max"] = "9"
    settings = [{"name": "resource_name", "value": "units"}]
    document["spec"]["algorithm"] = {"algorithmName": "hyperband", "algorithmSettings": settings}
    for count in (4, 11):
        process = launch(document, tmp_path)
        wait_for(lambda count=count: finished(tmp_path) >= count)
        process.kill()
        process.communicate()
    journal = tmp_path / "out" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"event":"finis')  # as a kill in the middle of a write leaves it
    json.loads((tmp_path / "out" / "results.json").read_text())  # whole, although the run was killed
    (tmp_path / "out" / ".results.json.1-x").write_text("{")
    process = launch(document, tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert not list((tmp_path / "out").glob(".*"))
    ended = [event["name"] for event in events(tmp_path, "finished")]
    assert len(ended) == len(set(ended)) == 18
    runs = collections.Counter((tmp_path / "runs").read_text().split())
    restarted = [event["name"] for event in events(tmp_path, "started")]
    assert set(runs) == set(ended)
    # Only what was running at a kill may have run twice.
    assert sum(runs.values()) <= 18 + 2 * 3
    assert len(restarted) <= 18 + 2 * 3


def test_a_full_disk_ends_the_run_and_loses_no_finished_trial(tmp_path):
    script = 'echo "$NAME" >> "$RUNS"; echo "loss=$LR"'
    document = scripted(script, maxTrialCount=18, maxFailedTrialCount=18, parallelTrialCount=2)
    before: set[str] = set()
    for limit in (2500, 4000, 6500):  # bytes that a file may have
        process = launch(document, tmp_path, limit=limit)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "[Errno 27]" in output.splitlines()[-1]
        ended = [event["name"] for event in events(tmp_path, "finished")]
        assert before <= set(ended)
        before = set(ended)
    assert 0 < len(before) < 18
    runs = collections.Counter((tmp_path / "runs").read_text().split())
    process = launch(document, tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    ended = [event["name"] for event in events(tmp_path, "finished")]
    assert len(ended) == len(set(ended)) == 18
    assert len(results(tmp_path)["trials"]) == 18
    again = collections.Counter((tmp_path / "runs").read_text().split())
    assert all(again[name] == runs[name] for name in before)


def test_a_trial_that_failed_on_a_full_disk_is_tried_again(tmp_path, monkeypatch):
    script = f"[ -e {tmp_path}/tried ] && echo loss=0.5 || {{ touch {tmp_path}/tried; exit 1; }}"
    document = scripted(script, parallelTrialCount=1, maxTrialCount=2, maxFailedTrialCount=1)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4096))
        with pytest.raises(
            OSError, match="No space left on device at .*: 4,096 bytes are free, .*exit status 1"
        ) as error:
            start(document, tmp_path)
    assert error.value.errno == errno.ENOSPC and not events(tmp_path, "finished")
    assert start(document, tmp_path).outcome is Outcome.SUCCEEDED
    assert {trial["status"] for trial in results(tmp_path)["trials"]} == {"succeeded"}


def test_no_trial_outlives_a_killed_runner(tmp_path):
    process = launch(scripted("sleep 60.74; echo loss=1"), tmp_path)
    wait_for(lambda: alive("sleep 60.74"))
    process.kill()
    process.communicate()
    wait_for(lambda: not alive("60.74"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_trials_and_keeps_the_results(tmp_path, number):
    script = 'if [ -e "$RUNS" ]; then sleep 60.75; else touch "$RUNS"; echo loss=0.5; fi'
    document = scripted(script, parallelTrialCount=1)
    process = launch(document, tmp_path)
    wait_for(lambda: finished(tmp_path) and alive("sleep 60.75"))
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in output
    assert alive("60.75") == []
    summary = results(tmp_path)
    assert summary["outcome"] == "Interrupted"
    assert [trial["status"] for trial in summary["trials"]] == ["succeeded", "created"]
    assert (tmp_path / "out" / "report.html").exists()


def test_a_multi_fidelity_run_reports_the_best_at_the_largest_resource(tmp_path):
    document = scripted('echo "loss=0.$UNITS"', maxTrialCount=22, maxFailedTrialCount=22, parallelTrialCount=2)
    document["spec"]["parameters"][1]["feasibleSpace"]["max"] = "9"
    settings = [{"name": "resource_name", "value": "units"}]
    document["spec"]["algorithm"] = {"algorithmName": "bohb", "algorithmSettings": settings}
    result = start(document, tmp_path)
    assert result.best.value == 0.9  # not the 0.1 of the lowest rung
    best = results(tmp_path)["best"]
    assert (best["resource"], best["at_maximum_resource"]) == (9.0, True)


def with_goals(**settings):
    """Minimize loss = lr and maximize accuracy = lr; trials of fewer than 10 units report no accuracy."""
    document = scripted('case $UNITS in [1-9]) a=nan;; *) a=$LR;; esac; echo "loss=$LR accuracy=$a"')
    document["spec"]["algorithm"]["algorithmSettings"] += [{"name": k, "value": v} for k, v in settings.items()]
    document["spec"]["maxTrialCount"] = 12
    return document


def test_a_front_and_a_rule_that_picks_from_it(tmp_path):
    goals = {"objectives": "maximize accuracy", "constraints": "loss <= 0.7"}
    console = Console(file=io.StringIO(), width=200)
    rule = "accuracy >= 0.4, min loss"
    result = start(with_goals(**goals), tmp_path, pick=rule, console=console)
    summary = results(tmp_path)
    trials = {trial["name"]: trial for trial in summary["trials"]}
    silent = {name for name, trial in trials.items() if trial["metrics"]["accuracy"] == ""}
    assert silent and all("accuracy is no finite number" in trials[name]["reason"] for name in silent)
    kept = {name for name in trials if name not in silent and trials[name]["value"] <= 0.7}
    assert set(summary["front"]) == kept  # none dominates another
    assert [trials[name]["feasible"] for name in summary["front"]] == [True] * len(kept)
    best = min((n for n in kept if float(trials[n]["metrics"]["accuracy"]) >= 0.4), key=lambda n: trials[n]["value"])
    assert result.best.name == summary["best"]["name"] == best
    assert (result.exit_code, summary["pick"]) == (0, {"rule": rule, "met": True})
    shares = [entry["hypervolume"] for entry in summary["finished"]]
    assert shares == sorted(shares) and 0 < shares[-1] < 1
    text = console.file.getvalue()
    assert text.count("\nFront: ") == len(kept) and f"Picked: {best} succeeded loss=" in text
    again = start(with_goals(**goals), tmp_path, pick="accuracy >= 3", console=console)
    assert (again.exit_code, results(tmp_path)["pick"]["met"]) == (3, False)
    assert "No trial meets 'accuracy >= 3'; the best is the nearest." in console.file.getvalue()
    assert result.trials == again.trials == 12


def test_if_no_trial_keeps_the_constraints_the_least_infeasible_is_told(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    result = start(with_goals(constraints="loss <= 0.01"), tmp_path, console=console)
    summary = results(tmp_path)
    assert (result.exit_code, summary["feasible"]) == (3, False)
    assert result.best.value == min(trial["value"] for trial in summary["trials"])
    assert "No trial keeps the constraints; the best is the one that breaks them least." in console.file.getvalue()
    assert "none keeps the constraints" in console.file.getvalue()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"objectives": "maximize accuracy, minimize accuracy"}, "must name each metric once, but 'accuracy' is named"),
        ({"objectives": "minimize latency"}, r"must name metrics that trials report, .* but got 'latency'"),
        (
            {"constraints": "latency <= 5"},
            r"constraints must name metrics .*\(loss, accuracy\), but got 'latency'",
        ),
    ],
)
def test_goals_that_no_trial_could_reach_are_refused_before_any(tmp_path, settings, rule):
    with pytest.raises(ExperimentError, match=rule):
        start(with_goals(**settings), tmp_path)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="pick must name metrics"):
        start(with_goals(), tmp_path, pick="min latency")
    assert not (tmp_path / "out").exists()
