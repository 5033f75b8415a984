"""The fork server, with real processes; none of them imports more than kfp."""

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kondense_pipelines.local.stage_process import run_stage, split_command
from kondense_pipelines.local.warm import ServerLostError, WarmServer

SCRIPT = 'program_path=$(mktemp -d)\nprintf "%s" "$0" > "$program_path/x.py"\npython3 -m kfp.dsl.executor_main "$@"\n'


def command(directory: Path, body: str) -> list[str]:
    """Return the command that kfp makes of a component called ``step`` without inputs."""
    program = "import os, sys, time\ndef step():\n" + textwrap.indent(textwrap.dedent(body), "    ")
    executor_input = {"inputs": {}, "outputs": {"outputFile": str(directory / "executor_output.json")}}
    return [
        "sh",
        "-ec",
        SCRIPT,
        program,
        "--executor_input",
        json.dumps(executor_input),
        "--function_to_execute",
        "step",
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmServer]:
    log = tmp_path_factory.mktemp("warm") / "server.log"
    with log.open("w") as output, WarmServer(output, modules=("kfp.dsl.executor_main",)) as started:
        yield started


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("warm", [True, False])
def test_exit_codes_output_and_environment_are_those_of_a_plain_process(
    server: WarmServer, tmp_path: Path, warm: bool
) -> None:
    lines: list[str] = []
    body = "print(os.environ['COLOUR'], os.getcwd())\nprint('to stderr', file=sys.stderr)\nsys.exit(7)\n"
    chosen = server if warm else None
    assert run_stage(command(tmp_path, body), {"COLOUR": "blue"}, lines.append, chosen) == 7
    assert f"blue {Path.cwd()}" in lines and "to stderr" in lines


@pytest.mark.parametrize("warm", [True, False])
def test_an_error_is_told_like_the_interpreter_does(server: WarmServer, tmp_path: Path, warm: bool) -> None:
    lines: list[str] = []
    assert run_stage(command(tmp_path, "raise ValueError('no')\n"), {}, lines.append, server if warm else None) == 1
    assert lines[-1] == "ValueError: no"


def test_steps_are_forked_from_one_warm_process_that_has_kfp(server: WarmServer, tmp_path: Path) -> None:
    lines: list[str] = []
    body = "print('parent', os.getppid())\n"
    for _ in range(2):
        assert run_stage(command(tmp_path, body), {}, lines.append, server) == 0
    assert [line for line in lines if line.startswith("parent")] == [f"parent {server.process.pid}"] * 2
    assert not any("no warm start" in line for line in lines)


def test_a_module_that_is_edited_between_two_steps_is_imported_anew(
    server: WarmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    body = f"sys.path.insert(0, {str(tmp_path)!r})\nimport minenet\nprint('act', minenet.ACT)\n"
    for second, activation in enumerate(("ReLU", "Tanh")):
        (tmp_path / "minenet.py").write_text(f"ACT = {activation!r}\n")
        os.utime(tmp_path / "minenet.py", (second, second))  # compiled modules are told apart by whole seconds and size
        assert run_stage(command(tmp_path, body), {}, lines.append, server) == 0
    assert [line for line in lines if line.startswith("act")] == ["act ReLU", "act Tanh"]


def test_a_server_that_has_exported_still_forks_and_its_steps_have_all_threads(tmp_path: Path) -> None:
    exporter = "torch.onnx._internal.exporter._core"  # what the first export imports
    body = f"""
    if {exporter!r} in sys.modules:
        import torch
        print('threads', torch.get_num_threads())
    """
    lines: list[str] = []
    modules = ("kfp.dsl.executor_main", "kondense.export.onnx:warm_up")
    with (tmp_path / "server.log").open("w") as log, WarmServer(log, modules) as started:
        deadline = time.monotonic() + 120
        while not any(line.startswith("threads") for line in lines) and time.monotonic() < deadline:
            assert run_stage(command(tmp_path, body), {}, lines.append, started) == 0
            time.sleep(0.1)
    threads = os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    assert f"threads {threads}" in lines
    assert not any("no warm start" in line for line in lines)
    assert not (tmp_path / "server.log").read_text()


def test_kill_9_of_a_step_is_seen_as_such(server: WarmServer, tmp_path: Path) -> None:
    assert run_stage(command(tmp_path, "os.kill(os.getpid(), 9)\n"), {}, lambda line: None, server) == -signal.SIGKILL
    assert run_stage(command(tmp_path, "print('next')\n"), {}, lambda line: None, server) == 0


def test_variables_that_libraries_read_at_import_start_it_cold(server: WarmServer, tmp_path: Path) -> None:
    lines: list[str] = []
    body = "print('threads', os.environ['OMP_NUM_THREADS'])\n"
    environment = {"OMP_NUM_THREADS": "7"}
    assert run_stage(command(tmp_path, body), environment, lines.append, server) == 0
    assert "threads 7" in lines and "no warm start for this step" in lines[0]


def test_a_server_that_died_is_started_again_and_the_steps_are_warm(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    lines: list[str] = []
    with log.open("w") as output, WarmServer(output, modules=()) as started:
        first = started.process
        first.kill()
        first.wait()
        assert run_stage(command(tmp_path, "print('parent', os.getppid())\n"), {}, lines.append, started) == 0
        assert started.process.pid != first.pid and f"parent {started.process.pid}" in lines
    assert "it was started again, and this step with it" in lines[0]


def test_a_server_that_keeps_dying_is_given_up_and_the_step_starts_cold(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    lines: list[str] = []
    body = "print('try', os.getppid())\nos.getppid() != int(os.environ['DRIVER']) and os.kill(os.getppid(), 9)\n"
    with log.open("w") as output, WarmServer(output, modules=(), restarts=2) as started:
        step = command(tmp_path, body + "time.sleep(0.2)\n")
        assert run_stage(step, {"DRIVER": str(os.getpid())}, lines.append, started) == 0
    assert sum("it was started again" in line for line in lines) == 2
    assert sum("no warm start for this step" in line for line in lines) == 1
    assert f"try {os.getpid()}" in lines


def test_a_server_killed_in_mid_step_takes_the_step_along_and_it_starts_again(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    body = f"""
    print('pid', os.getpid())
    if not os.path.exists({str(mark)!r}):
        open({str(mark)!r}, 'w').close()
        os.kill(os.getppid(), 9)
        time.sleep(60)
    """
    lines: list[str] = []
    with (tmp_path / "server.log").open("w") as output, WarmServer(output, modules=()) as started:
        assert run_stage(command(tmp_path, body), {}, lines.append, started) == 0
        assert started.process.poll() is None
    first = int(next(line for line in lines if line.startswith("pid")).split()[1])
    assert not alive(first)
    assert len([line for line in lines if line.startswith("pid")]) == 2


def test_a_cold_step_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n")
    code = (
        "from kondense_pipelines.local.stage_process import run_module;"
        "run_module(['sleeper'], {}, lambda line: print(line, flush=True))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
    with process:
        assert process.stdout
        step = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
        poller = select.poll()
        poller.register(step, select.POLLIN)
        assert poller.poll(60_000)
        os.close(step)


def test_closing_the_server_ends_what_runs_in_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with (tmp_path / "server.log").open("w") as log, WarmServer(log, modules=()) as started:
        scratch = tmp_path / "sleeper.py"
        scratch.write_text("import time\ndef step():\n    time.sleep(60)\n")
        argv = ["-m", "--component_module_path", str(scratch), *command(tmp_path, "")[4:]]
        stage = started.start(argv, dict(os.environ), writing)
        os.close(writing)
    deadline = time.monotonic() + 120
    while alive(stage.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(stage.pid)
    with pytest.raises(ServerLostError):
        stage.wait()
    os.close(reading)


@pytest.mark.parametrize("wrong", [["python3", "main.py"], ["sh", "-c", "python3 -m kfp.dsl.executor_main", "x"], []])
def test_only_lightweight_components_are_taken(wrong: list[str]) -> None:
    with pytest.raises(ValueError, match="lightweight Python component"):
        split_command(wrong)
