"""A pipeline under kfp.local with the cache, the logs and the failure lines, on toy components."""

import dataclasses
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kondense.artifacts.failed import read_failed
from kondense_pipelines.local.progress import RunProgress
from kondense_pipelines.local.run import LocalSettings, run_pipeline
from kondense_pipelines.local.steps import StepError, StepResult
from kondense_pipelines.local.warm import WarmServer
from rich.console import Console

from tests.support.toy_pipeline import toy, toy_candidates

ORDER = ("write data", "fit first", "fit last")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmServer]:
    log = tmp_path_factory.mktemp("warm") / "server.log"
    with log.open("w") as output, WarmServer(output, modules=("kfp.dsl.executor_main",)) as started:
        yield started


class Run:
    """Runs the toy pipeline; ``text`` is what a person without a terminal has seen."""

    def __init__(self, directory: Path, server: WarmServer) -> None:
        self.directory, self.server = directory, server
        self.text = ""

    def __call__(
        self, *, version: str = "v", caching: bool = True, pipeline: Any = toy, watch: Any = None, **arguments: str
    ) -> dict[str, StepResult]:
        settings = LocalSettings(self.directory / "out", self.directory / "cache", version, ORDER, caching)
        settings = dataclasses.replace(settings, **(watch or {}))
        screen = io.StringIO()
        try:
            with RunProgress(Console(file=screen, width=120), len(ORDER)) as progress:
                return run_pipeline(pipeline, arguments, settings, progress, self.server)
        finally:
            self.text = screen.getvalue()

    def reused(self, **arguments: str) -> list[str]:
        return [name for name, result in self(**arguments).items() if result.reused]


@pytest.fixture
def run(tmp_path: Path, server: WarmServer) -> Run:
    return Run(tmp_path, server)


def test_steps_run_in_the_order_asked_for_and_leave_outputs_and_logs(run: Run, capfd: pytest.CaptureFixture) -> None:
    results = run(text="abc")
    assert tuple(results) == ORDER
    assert (results["fit last"].outputs["model"] / "text").read_text() == "ABC"
    log = (run.directory / "out" / "logs" / "fit-last.log").read_text()
    assert "epoch 2/2 train_loss=0.4" in log
    assert capfd.readouterr().out == ""
    assert all(name in run.text for name in ORDER)


def test_a_second_run_reuses_everything_and_says_so(run: Run) -> None:
    first = run()
    second = run()
    assert all(result.reused for result in second.values())
    assert {name: result.outputs for name, result in first.items()} == {
        name: result.outputs for name, result in second.items()
    }
    assert run.text.count("reused, nothing changed") == len(ORDER)


def test_only_what_a_change_reaches_runs_again(run: Run) -> None:
    run()
    assert run.reused(end="x") == ["write data", "fit last"]
    assert run.reused(text="b") == []
    assert run.reused(version="w") == []
    assert run.reused(caching=False) == []


def test_a_step_whose_files_are_gone_or_damaged_runs_again(run: Run) -> None:
    results = run(last_end="other")
    shutil.rmtree(results["fit first"].outputs["model"])
    (results["fit last"].outputs["model"] / "text").write_text("damaged")
    again = run(last_end="other")
    assert [name for name, result in again.items() if result.reused] == ["write data"]
    assert (again["fit last"].outputs["model"] / "text").read_text() == "A"


def test_equal_content_at_a_new_path_is_unchanged(run: Run) -> None:
    results = run()
    shutil.rmtree(results["write data"].outputs["dataset"])
    assert run.reused() == ["fit first", "fit last"]


def test_an_error_is_one_line_and_what_finished_is_kept(run: Run) -> None:
    with pytest.raises(StepError) as caught:
        run(last_end="error")
    log = run.directory / "out" / "logs" / "fit-last.log"
    assert str(caught.value) == (f"step 'fit last' failed: sparsity must be in [0, 1), but got 1.0. (log: {log})")
    assert "Traceback" in log.read_text()
    assert run.reused() == ["write data", "fit first"]


def test_kill_9_of_a_step_then_the_same_call_finishes(run: Run) -> None:
    mark = run.directory / "kill-now"
    mark.touch()
    with pytest.raises(StepError, match="ended by SIGKILL"):
        run(last_end=str(mark))
    mark.unlink()
    results = run(last_end=str(mark))
    assert [name for name, result in results.items() if result.reused] == ["write data", "fit first"]
    assert (results["fit last"].outputs["model"] / "text").read_text() == "A"


@pytest.mark.parametrize("pipeline", [toy, toy_candidates])
def test_a_step_that_is_killed_once_is_started_again_and_the_run_says_so(run: Run, pipeline: Any) -> None:
    mark = run.directory / "kill-once"
    mark.touch()
    results = run(pipeline=pipeline, end=str(mark))
    assert not any(result.failed for result in results.values())
    assert "it was ended by SIGKILL; it is started again (retry 1 of 1)" in run.text
    mark.touch()
    with pytest.raises(StepError, match="ended by SIGKILL, as the kernel does when memory is short"):
        run(end=str(mark), text="b", watch={"retries": 0})


def test_a_step_that_fails_while_the_store_is_started_again_is_started_again(run: Run) -> None:
    mark = run.directory / "fail-once"
    mark.touch()
    with pytest.raises(StepError, match="the store cannot be reached"):
        run(end=str(mark), watch={"store": lambda: "the same process"})
    mark.touch()
    started = iter(range(100))
    run(end=str(mark), watch={"store": lambda: next(started)})
    assert "the object store was started again meanwhile; it is started again (retry 1 of 1)" in run.text
    with pytest.raises(StepError, match="must be in"):
        run(end="error", watch={"store": lambda: next(started)})  # once only


def test_a_candidate_of_which_the_store_is_started_again_is_made_after_all(run: Run) -> None:
    mark = run.directory / "fail-once"
    mark.touch()
    started = iter(range(100))
    results = run(pipeline=toy_candidates, end=str(mark), watch={"store": lambda: next(started)})
    assert not any(result.failed for result in results.values())
    assert "started again meanwhile" in run.text


def test_a_candidates_step_that_fails_or_is_killed_leaves_its_reason_and_the_others_go_on(run: Run) -> None:
    mark = run.directory / "kill-now"
    mark.touch()
    results = run(pipeline=toy_candidates, end=str(mark))
    failed = read_failed(results["fit own"].outputs["model"])
    assert failed == results["fit own"].failed
    assert failed["step"] == "fit own" and "ended by SIGKILL" in failed["reason"]
    assert results["fit other"].failed is None
    assert "✗ fit own" in run.text and "logs/fit-own.log" in run.text

    again = run(pipeline=toy_candidates, end=str(mark))  # the same command tries the failed one again, only that
    assert [name for name, result in again.items() if not result.reused] == ["fit own"]
    mark.unlink()
    fine = run(pipeline=toy_candidates, end=str(mark))
    assert not fine["fit own"].failed and (fine["fit own"].outputs["model"] / "text").read_text() == "A"


def test_equal_steps_of_one_run_are_done_once(run: Run) -> None:
    results = run(end="same", last_end="same")
    assert [name for name, result in results.items() if result.reused] == ["fit last"]


class Engine:
    """Stands in for the Docker Engine: a container is a process of this machine."""

    def __init__(self) -> None:
        self.containers = self
        self.created: list[dict[str, Any]] = []

    def info(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass

    def create(self, **arguments: Any) -> "Engine":
        self.created.append(arguments)
        return self

    def start(self) -> None:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment |= self.created[-1]["environment"]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(self.created[-1]["command"], env=environment, **output)

    def logs(self, **_: Any) -> Any:
        return self.process.stdout

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self.process.wait()}

    def remove(self, **_: Any) -> None:
        self.process.stdout.close()


def test_containers_get_the_environment_and_their_failures_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine()
    monkeypatch.setattr("docker.from_env", lambda: engine)
    settings = LocalSettings(
        tmp_path / "out",
        tmp_path / "cache",
        "image",
        ORDER,
        docker=True,
        environment={"A": "1"},
        mounts=[Path("/data")],
    )
    with (
        pytest.raises(StepError, match=r"step 'fit last' failed: sparsity must be in .* \(log: "),
        RunProgress(Console(file=io.StringIO()), len(ORDER)) as progress,
    ):
        run_pipeline(toy, {"last_end": "error"}, settings, progress)
    first = engine.created[0]
    assert first["environment"]["A"] == "1"
    assert first["entrypoint"] == "" and first["network_mode"] == "host" and "auto_remove" not in first
    assert first["volumes"]["/data"] == {"bind": "/data", "mode": "ro"}
    assert str(tmp_path / "cache" / "artifacts") in first["volumes"]
    assert "epoch 2/2" in (tmp_path / "out" / "logs" / "fit-first.log").read_text()
