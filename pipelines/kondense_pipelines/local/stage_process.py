"""A stage as a process: forked from the warm server, or started cold if there is none."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from kondense.errors import InputError
from kondense.scratch import scratch_directory

from kondense_pipelines.local.warm import PATIENT, ServerDiedError, ServerLostError, WarmServer
from kondense_pipelines.local.warm_server import EXECUTOR


def run_stage(
    command: Sequence[str],
    environment: Mapping[str, str],
    write_line: Callable[[str], None],
    server: WarmServer | None = None,
) -> int:
    """Run the command of a lightweight KFP component and return its exit code.

    Args:
        command: as kfp makes it: ``sh -ec SCRIPT PROGRAM ARGUMENT...``, where the script writes the program to a file
            and starts kfp's executor on it. Here no shell is used.
        environment: the component's variables, added to this process's.
        write_line: called with each line of the output.
        server: forks the process; if it dies, it is started again, and the process with it. Without it, or if it
            refuses, an interpreter is started.

    Returns:
        The exit code, or minus the number of the signal that ended the process.
    """
    program, arguments = split_command(command)
    with scratch_directory("step") as scratch:
        path = scratch / "ephemeral_component.py"
        path.write_text(program)
        argv = [EXECUTOR, "--component_module_path", str(path), *arguments]
        return run_module(argv, environment, write_line, server)


def run_module(
    argv: Sequence[str],
    environment: Mapping[str, str],
    write_line: Callable[[str], None],
    server: WarmServer | None = None,
) -> int:
    """Run ``python -m`` with a module and its arguments, as ``run_stage`` does, and return its exit code."""
    full_environment = {**PATIENT, **os.environ, **environment, "_KFP_RUNTIME": "true", "PYTHONUNBUFFERED": "1"}
    while server is not None:
        try:
            return _run_warm(server, argv, full_environment, write_line)
        except ServerDiedError as error:
            # Stages are resumable, so one that was lost with the server can be started again.
            if server.restart():
                write_line(f"warning: {error}; it was started again, and this step with it")
                continue
            write_line(f"no warm start for this step: {error}")
        except ServerLostError as error:
            write_line(f"no warm start for this step: {error}")
        break
    return _run_cold(argv, full_environment, write_line)


def split_command(command: Sequence[str]) -> tuple[str, list[str]]:
    """Return the program and the executor's arguments of a lightweight component's command.

    Raises:
        InputError: it is not the command of a lightweight component without packages to install.
    """
    if len(command) < 4 or list(command[:2]) != ["sh", "-ec"] or f"python3 -m {EXECUTOR}" not in command[2]:
        raise InputError(f"a step must be a lightweight Python component, but its command is {list(command[:3])}.")
    return command[3], list(command[4:])


def _run_warm(
    server: WarmServer, argv: Sequence[str], environment: Mapping[str, str], write_line: Callable[[str], None]
) -> int:
    reading, writing = os.pipe()
    try:
        stage = server.start(argv, environment, writing)
    except ServerLostError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    with os.fdopen(reading, errors="replace") as output:
        for line in output:
            write_line(line.rstrip("\n"))
    return stage.wait()


def _run_cold(argv: Sequence[str], environment: Mapping[str, str], write_line: Callable[[str], None]) -> int:
    command = [sys.executable, "-P", "-m", "kondense_pipelines.local.cold", str(os.getpid()), *argv]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        for line in process.stdout:
            write_line(line.rstrip("\n"))
        return process.wait()
