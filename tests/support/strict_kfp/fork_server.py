"""Starts steps as forks of a process that has imported torch and kfp: importing them takes longer than a small step.

A step's process is one of its own, with its own variables, working directory and output. kfp's executor runs in it
on the component's source, as ``python3 -m kfp.dsl.executor_main`` does in the container. The one difference is where
``minio://`` artifacts lie: below the step's directory instead of ``/minio``.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from select import select
from typing import Any, NoReturn

from kondense_pipelines.local.warm import PRELOADED

REPOSITORY = Path(__file__).parents[3]
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TIMEOUT_S = 300.0


class ForkServer:
    """The server as a context; ``run`` runs one step."""

    def __enter__(self) -> "ForkServer":
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=REPOSITORY,
            env={**os.environ, **ALONE, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that a step ends with it
        )
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def run(
        self, source: str, arguments: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path
    ) -> int:
        """Run a component's source and return its exit code, or minus a signal's number.

        Args:
            source: the component's module.
            arguments: those of kfp's executor, but for the module's path.
            environment: all variables.
            directory: where ``/minio`` and ``/tmp`` are.
            log: gets what the step says.
        """
        assert self.process.stdin and self.process.stdout
        step = [source, list(arguments), dict(environment), str(directory), str(log)]
        self.process.stdin.write(json.dumps(step) + "\n")
        self.process.stdin.flush()
        if not select([self.process.stdout], [], [], TIMEOUT_S)[0]:
            raise TimeoutError(f"the step took more than {TIMEOUT_S:g} s:\n{log.read_text()}")
        return int(self.process.stdout.readline())


def serve() -> None:
    """Run the steps that come in on stdin, a line each, and answer each with its status."""
    for name in PRELOADED:
        module, _, function = name.partition(":")
        imported = importlib.import_module(module)
        if function:
            getattr(imported, function)()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            answers.close()
            _become(*json.loads(line))
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def _become(source: str, arguments: list[str], environment: dict[str, str], directory: str, log: str) -> NoReturn:
    """Be the step; never return."""
    code: Any = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, descriptor in ((0, nothing), (1, output), (2, output)):
            os.dup2(descriptor, target)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(directory)
        tempfile.tempdir = None  # TMPDIR is another one now
        code = execute(source, arguments, Path(directory))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def execute(source: str, arguments: Sequence[str], directory: Path) -> int:
    """Run kfp's executor on a component's source in this process."""
    from kfp.dsl import executor_main
    from kfp.dsl.types import artifact_types

    artifact_types._MINIO_LOCAL_MOUNT_PREFIX = f"{directory}/minio/"
    module = Path(tempfile.mkdtemp()) / "ephemeral_component.py"
    module.write_text(source, encoding="utf-8")
    sys.argv = ["executor_main", "--component_module_path", str(module), *arguments]
    executor_main.executor_main()
    return 0


if __name__ == "__main__":
    serve()
