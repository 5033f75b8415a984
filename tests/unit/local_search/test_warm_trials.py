"""Trials forked from the warm server: a stand-in for Kondense's command, in real processes without torch."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kondense.katib.template import TrialCommand
from kondense_pipelines.local_search import warm_trials
from kondense_pipelines.local_search.trial_process import TrialProcess
from kondense_pipelines.local_search.warm_trials import WarmProcess, WarmTrials

from tests.support.distribution import run_python

BODY = """
import os, signal, subprocess, sys, time
print(os.getppid(), os.getpgrp() == os.getpid(), os.getcwd(), sys.argv[1:], os.environ["COLOUR"], flush=True)
if "--sleep" in sys.argv:
    print(subprocess.Popen(["sleep", "60.71"]).pid, flush=True)
    time.sleep(60.71)
sys.exit(7 if "--fail" in sys.argv else 0)
"""


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WarmTrials]:
    (tmp_path / "stand_in.py").write_text(BODY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setattr(warm_trials, "COMMAND", ("-m", "stand_in", "trial"))
    monkeypatch.setattr(warm_trials, "PRELOADED", ())
    with WarmTrials(tmp_path / "warm.log") as trials:
        yield trials
    assert not (tmp_path / "warm.log").exists()


def trial(warm: WarmTrials, directory: Path, *flags: str, attempts: int = 1, **variables: str) -> TrialProcess:
    environment = {**os.environ, "COLOUR": "blue", **variables}
    command = TrialCommand((sys.executable, "-m", "stand_in", "trial", *flags), environment, None, attempts)
    made = TrialProcess(command, directory / "trial", directory, warm)
    made.start()
    return made


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(process: TrialProcess) -> str:
    found: list[str] = []
    until(lambda: [found.append(text) for text in [process.poll()] if text is not None] or found)
    return found[0]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_trial_is_forked_with_its_directory_variables_and_a_group_of_its_own(
    warm: WarmTrials, tmp_path: Path
) -> None:
    assert ended(trial(warm, tmp_path, "--lr=3")) == ""
    assert warm.server is not None
    line = f"{warm.server.process.pid} True {tmp_path} ['trial', '--lr=3'] blue"
    assert (tmp_path / "trial" / "output.log").read_text().strip() == line
    assert ended(trial(warm, tmp_path, "--fail", attempts=2)).startswith("exit status 7; its last line: ")


def test_a_stopped_trial_ends_with_the_processes_that_it_started(warm: WarmTrials, tmp_path: Path) -> None:
    process = trial(warm, tmp_path, "--sleep")
    log = tmp_path / "trial" / "output.log"
    until(lambda: log.read_text().count("\n") == 2)
    process.stop()
    assert ended(process).startswith("exit status 143: ended by SIGTERM")
    until(lambda: gone(int(log.read_text().split()[-1])))


def test_a_trial_that_its_server_took_along_starts_again_and_has_not_failed(warm: WarmTrials, tmp_path: Path) -> None:
    process = trial(warm, tmp_path, "--sleep")
    log = tmp_path / "trial" / "output.log"
    until(lambda: log.read_text().count("\n") == 2)
    assert warm.server is not None
    first = warm.server.process.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: process.poll() is None and log.read_text().count("\n") == 2 and str(first) not in log.read_text())
    assert warm.server.process.pid != first and process.attempt == 1
    process.kill()
    assert not process.running()


def test_what_cannot_be_forked_is_started_as_it_is(warm: WarmTrials, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as output:
        other = (sys.executable, "-c", "print(1)")
        assert warm.fork(other, os.environ, tmp_path, output.fileno()) is None
    assert ended(trial(warm, tmp_path)) == ""
    process = trial(warm, tmp_path, OMP_NUM_THREADS="7")  # read at import
    assert not isinstance(process._process, WarmProcess) and ended(process) == ""


def test_the_first_step_of_a_training_imports_nothing_that_the_server_has_not() -> None:
    program = """
    import sys
    from kondense_pipelines.local.warm_server import preload
    from kondense_pipelines.local_search.warm_trials import PRELOADED
    for entry in PRELOADED:
        preload(entry.lstrip("!"))
    import torch
    before = set(sys.modules)
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    print(sorted(name for name in set(sys.modules) - before if name.startswith("torch")))
    """
    assert run_python(program) == ["[]"]


@pytest.mark.parametrize(
    ("flags", "measures"),
    [
        (("--metrics=validation_accuracy",), False),
        (("--metrics=validation_accuracy,latency_ms",), True),
        (("--metrics=score", "--latency_budget_ms=2"), True),
        (("--metrics=",), True),  # all of them
        ((), True),
    ],
)
def test_the_exporter_is_imported_for_trials_that_measure_latency(flags: tuple[str, ...], measures: bool) -> None:
    assert warm_trials._measures_latency((sys.executable, "-m", "kondense.cli", "trial", *flags)) is measures
