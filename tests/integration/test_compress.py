"""The whole compress pipeline through ``kondense run``: kills, reuse, results.

One run is made, interrupted twice on its way, and looked at by all tests here.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from kondense.artifacts.model import load_model
from kondense.artifacts.report import read_report
from kondense_pipelines.graphs.candidates import read_plan
from kondense_pipelines.graphs.compress import task_names
from kondense_pipelines.graphs.parameters import resolve

SETTINGS = (
    "--no-check",
    *("--dataset", "digits", "--seed", "1"),
    *("--set", "data_prep.image_size=16", "--set", "train.epochs=6", "--set", "prune.epochs=3"),
    *("--set", "prune_weights.epochs=2", "--set", "prune_weights.steps=2", "--set", "distill.epochs=8"),
    *("--set", "evaluate.latency_seconds=0.05", "--set", "evaluate.further_latency_seconds=0.01"),
    *("--set", "evaluate.robustness_images=50"),
)
RECIPE = "own=prune:l1:0.5:epochs=1 > distill:epochs=2 > quantize:static"
TASKS = task_names(read_plan(resolve("quick"), None, [RECIPE]))
CANDIDATES = {
    "teacher",
    "quantized",
    "pruned",
    "pruned-quantized",
    "distilled",
    "distilled-quantized",
    "pruned-distilled-quantized",
    "sparse-packed",
    "own",
}
TIMEOUT_S = 300


class Outcome(NamedTuple):
    """How one command ended."""

    code: int
    stdout: str
    stderr: str


class Workplace:
    """A directory in which ``kondense run`` is called, and what was seen on the way."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stage_killed = self.command_killed = self.finished = Outcome(-1, "", "")

    def start(self, output: str, *options: str, **environment: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-c",
            "from kondense_pipelines.cli.app import main; main()",
            "run",
            *SETTINGS,
            "--recipe",
            RECIPE,
        ]
        return subprocess.Popen(
            [*command, "--output", output, *options],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", **environment},
        )

    def run(self, output: str, **environment: str) -> Outcome:
        with self.start(output, **environment) as process:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        return Outcome(process.returncode, stdout, stderr)

    def interrupt(self, output: str, log: str, kill: Callable[[int], None]) -> Outcome:
        """Run until ``log`` tells of an epoch, then call ``kill`` with the command's process id."""
        path = self.directory / output / "logs" / log
        with self.start(output, "--retries", "0") as process:
            deadline = time.monotonic() + TIMEOUT_S
            while not (path.exists() and "\nepoch 1/" in path.read_text()):
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()
                time.sleep(0.005)
            kill(process.pid)
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        return Outcome(process.returncode, stdout, stderr)

    def steps(self, output: str) -> dict[str, bool]:
        """Return whether each step of a finished run was reused."""
        timings = json.loads((self.directory / output / "timings.json").read_text())
        return {step["name"]: step["reused"] for step in timings["steps"]}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_stage(command: int) -> None:
    """Kill the stage that the command's fork server runs."""
    servers = [pid for pid in children(command) if b"warm_server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    stages = children(servers[0])
    assert len(stages) == 1, f"the step was not forked from the warm server, which has {stages}; see the step's log"
    os.kill(stages[0], signal.SIGKILL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    place.command_killed = place.interrupt("out", "prune.log", lambda pid: os.kill(pid, signal.SIGKILL))
    place.stage_killed = place.interrupt("out", "distill.log", kill_stage)
    place.finished = place.run("out")
    return place


def test_a_killed_stage_is_its_candidates_failure_and_the_others_are_finished(workplace: Workplace) -> None:
    assert workplace.command_killed.code == -signal.SIGKILL
    killed = workplace.stage_killed
    assert (killed.code, killed.stderr) == (3, "")
    reason = "it was ended by SIGKILL, as the kernel does when memory is short; the same command continues the run"
    assert f"✗ distilled, distilled-quantized failed in distill: {reason}" in killed.stdout
    assert "✓ evaluate sparse-packed" in killed.stdout and "✓ publish" in killed.stdout


def test_the_same_command_finishes_and_reuses_what_was_done(workplace: Workplace) -> None:
    assert workplace.finished.code == 0, workplace.finished.stderr
    steps = workplace.steps("out")
    assert tuple(steps) == TASKS
    before = ("data prep", "train teacher", "evaluate teacher", "prune", "evaluate pruned")
    assert [name for name in before if not steps[name]] == []
    assert not steps["distill"]


def test_results_are_where_the_readme_says(workplace: Workplace) -> None:
    output = workplace.directory / "out"
    report = read_report(output)
    assert {report["teacher"]["name"], *(each["name"] for each in report["candidates"])} == CANDIDATES
    assert (output / "report.html").stat().st_size > 10_000
    assert {path.name for path in (output / "candidates").iterdir()} == CANDIDATES
    for directory in [*(output / "candidates").iterdir(), output / "chosen"]:
        load_model(directory)
    for name in CANDIDATES:
        assert name in workplace.finished.stdout
    assert "out/report.html" in workplace.finished.stdout
    assert {path.stem for path in (output / "logs").glob("*.log")} >= {"publish", "report", "distill"}


def test_a_second_run_reuses_everything_but_publishing(workplace: Workplace) -> None:
    again = workplace.run("again")
    assert again.code == 0, again.stderr
    assert {name for name, reused in workplace.steps("again").items() if not reused} == {"publish"}
    assert again.stdout.count("reused, nothing changed") == len(TASKS) - 1
    assert (workplace.directory / "again/report.json").read_bytes() == (
        workplace.directory / "out/report.json"
    ).read_bytes()


def test_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(workplace: Workplace) -> None:
    artifacts = workplace.directory / ".cache" / "kondense" / "artifacts"
    for directory in (*artifacts.glob("*/prune"), *artifacts.glob("*/distill")):
        shutil.rmtree(directory)
    fresh = workplace.run("fresh", KONDENSE_CHECKPOINTS="")
    assert fresh.code == 0, fresh.stderr
    steps = workplace.steps("fresh")
    assert steps["train teacher"] and not steps["prune"] and not steps["distill"]
    for name in CANDIDATES:
        files = [
            workplace.directory / output / "candidates" / name / "weights.safetensors" for output in ("out", "fresh")
        ]
        assert files[0].read_bytes() == files[1].read_bytes(), name
