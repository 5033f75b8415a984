"""The client of the warm start: one fork server per run, which forks the processes of the stages."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from kondense.errors import KondenseError
from kondense.launch import OF_LIBRARIES

from kondense_pipelines.local.warm_server import LENGTH_BYTES

# In the order in which a run needs them; without onnxruntime, whose import starts a thread.
PRELOADED = (
    "torch",
    "kfp.dsl.executor_main",
    "safetensors.torch",
    "minio",
    "torchvision",
    "onnx",
    "onnxscript",
    "torch.onnx",
    "torch.onnx._internal.exporter._core",
    "kondense.export.onnx:warm_up",
)
RESTARTS = 3  # of the server in one run; one that keeps dying is of no use
# Variables that libraries read at import, which in a forked stage has already happened.
READ_AT_IMPORT = ("OMP_", "MKL_", "KMP_", "OPENBLAS_", "TORCH", "PYTHON", "CUDA_", "LD_", "ATEN_")

# By default libgomp's threads spin while they wait for each other, which on a busy machine takes the processor from the
# threads that they wait for: training fell from 8,700 to 900 images/s beside busy processes. With less spinning the
# rate is a tenth lower on an idle machine, and more than a third of it remains beside one busy process.
PATIENT = {"GOMP_SPINCOUNT": "5000"}


class ServerLostError(KondenseError, ConnectionError):
    """The fork server refuses to fork; the stage must be started cold."""


class ServerDiedError(ServerLostError):
    """The fork server has ended, and its stages with it."""


class WarmServer:
    """A fork server as a context manager; ``start`` returns the process of one stage.

    Args:
        log: gets its output.
        modules: what it imports.
        restarts: times that it is started again after it has died.
        environment: of the server instead of this process's; its children must have the same of what libraries read at
            import.
    """

    def __init__(
        self,
        log: IO[str],
        modules: Sequence[str] = PRELOADED,
        restarts: int = RESTARTS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log, self.modules, self.restarts = log, modules, restarts
        self.lock = threading.Lock()
        variables = {**PATIENT, **os.environ, "_KFP_RUNTIME": "true"} if environment is None else environment
        self.environment = {**OF_LIBRARIES, **variables}
        self.control, self.process = self._started()

    def _started(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "kondense_pipelines.local.warm_server", str(theirs.fileno())]
        with theirs:
            process = subprocess.Popen(
                [*command, *self.modules],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                pass_fds=(theirs.fileno(),),
            )
        return ours, process

    def restart(self) -> bool:
        """Start the server again after it has died; return whether that was still allowed."""
        with self.lock:
            if self.restarts <= 0:
                return False
            self.restarts -= 1
            self.close()
            self.control, self.process = self._started()
            return True

    def __enter__(self) -> "WarmServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server and the stages that it runs."""
        self.control.close()
        self.process.wait()

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        output: int,
        *,
        directory: Path | None = None,
        session: bool = False,
    ) -> "WarmStage":
        """Start ``python -m`` with ``argv`` in a forked child.

        Args:
            argv: the child's ``sys.argv``; the first is the module.
            environment: all variables of the child.
            output: descriptor of its stdout and stderr; the caller closes its own copy.
            directory: its working directory; by default that of this process.
            session: whether it leads a session, and so a process group, of its own.

        Raises:
            ServerDiedError: the server has ended.
            ServerLostError: no child was started for another reason.
        """
        self._check_environment(environment)
        request = {
            "argv": list(argv),
            "env": dict(environment),
            "cwd": str(directory or Path.cwd()),
            "session": session,
        }
        payload = json.dumps(request).encode()
        ours, theirs = socket.socketpair()
        try:
            with theirs, self.lock:
                header = len(payload).to_bytes(LENGTH_BYTES, "big")
                socket.send_fds(self.control, [header], [theirs.fileno(), output])
                self.control.sendall(payload)
        except OSError as error:
            ours.close()
            raise ServerDiedError(f"the warm server cannot be reached: {error}") from None
        return WarmStage(ours)

    def _check_environment(self, environment: Mapping[str, str]) -> None:
        names = {name for name in {*environment, *self.environment} if name.startswith(READ_AT_IMPORT)}
        for name in sorted(names - {"PYTHONUNBUFFERED", *OF_LIBRARIES, *PATIENT}):
            if environment.get(name) != self.environment.get(name):
                raise ServerLostError(f"the step sets {name}, which libraries read when they are imported")


@contextlib.contextmanager
def warm_server(log: Path) -> Iterator[WarmServer]:
    """Provide a fork server that writes to ``log``; an empty log is deleted."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output, WarmServer(output) as server:
        yield server
    with contextlib.suppress(FileNotFoundError):  # another run on the same log has deleted it
        if not log.stat().st_size:
            log.unlink()


class WarmStage:
    """A process that runs in a child of the fork server."""

    def __init__(self, task: socket.socket) -> None:
        self.task, self.received = task, b""
        self.pid = self._answer("pid")

    def wait(self) -> int:
        """Return the exit code, or minus the number of the signal that ended it, as ``Popen.wait`` does.

        Raises:
            ServerDiedError: the server ended, and the process with it.
        """
        with self.task:
            return os.waitstatus_to_exitcode(self._answer("status"))

    def ended(self) -> bool:
        """Return whether ``wait`` would return, or raise, without waiting."""
        return b"\n" in self.received or bool(select.select([self.task], [], [], 0)[0])

    def _answer(self, key: str) -> int:
        while b"\n" not in self.received:
            chunk = self.task.recv(1 << 12)
            if not chunk:
                self.task.close()
                raise ServerDiedError("the warm server died")
            self.received += chunk
        line, _, self.received = self.received.partition(b"\n")
        answer = json.loads(line)
        if key not in answer:  # refused, or killed before it could tell its process id
            self.task.close()
            raise ServerLostError(answer.get("refused", "the process ended at its start"))
        return int(answer[key])
