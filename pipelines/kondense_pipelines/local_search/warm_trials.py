"""Trials of Kondense's own command, forked from a server that has imported torch instead of started anew.

A trial is short beside a start of Python with torch and the exporter. A command of another program is started as it is:
only of our own is it known that nothing depends on a fresh interpreter.
"""

import logging
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from kondense_pipelines.local.warm import ServerDiedError, ServerLostError, WarmServer, WarmStage

COMMAND = ("-m", "kondense.cli", "trial")  # after the interpreter
# What a trial imports, but for onnxruntime, whose import starts a thread, and for what imports it. The first trials
# wait for what all need, which several processes would import more slowly.
PRELOADED = (
    "!torch",
    "!torch._dynamo",  # which the first optimizer of a process imports, in 1.5 s of a processor
    "!kondense.train.stage",
    "!kondense.trial.stage",
    "!kondense.entry_points:read",
)
# What only trials that measure the latency need; it takes three seconds of a processor beside the first trials.
EXPORTER = (
    "onnx",
    "onnxscript",
    "torch.onnx",
    "torch.onnx._internal.exporter._core",
    "kondense.export.onnx:warm_up",
)
LATENCY = re.compile("latency[-_](ms|budget)")  # in the arguments of a trial that measures it
METRICS = "--metrics="
LOG = logging.getLogger("search")


class WarmTrials:
    """A fork server that starts with the first trial that can be forked, as a context manager.

    Args:
        log: the file of the server's own output; an empty one is removed.
    """

    def __init__(self, log: Path) -> None:
        self.log, self.stack = log, ExitStack()
        self.server: WarmServer | None = None

    def __enter__(self) -> "WarmTrials":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
        if self.server is not None and not self.log.stat().st_size:
            self.log.unlink()

    def fork(
        self, argv: Sequence[str], environment: Mapping[str, str], directory: Path, output: int
    ) -> "WarmProcess | None":
        """Return the process of a trial; None if it must be started anew.

        Args:
            argv: its command.
            environment: all its variables.
            directory: its working directory.
            output: descriptor of its stdout and stderr; the caller closes its own copy.
        """
        if tuple(argv[:1]) != (sys.executable,) or tuple(argv[1:4]) != COMMAND:
            return None
        if self.server is None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            opened = self.stack.enter_context(self.log.open("w"))
            modules = (*PRELOADED, *EXPORTER) if _measures_latency(argv) else PRELOADED
            self.server = self.stack.enter_context(WarmServer(opened, modules, environment=environment))
        while True:
            try:
                return WarmProcess(self.server.start(argv[2:], environment, output, directory=directory, session=True))
            except ServerLostError as error:
                if not isinstance(error, ServerDiedError) or not self.server.restart():
                    LOG.debug("no warm start for this trial: %s", error)
                    return None


def _measures_latency(argv: Sequence[str]) -> bool:
    """Return whether a trial may measure its model's latency: it does unless its metrics are named, and that is not."""
    named = [argument for argument in argv if argument.startswith(METRICS) and argument != METRICS]
    return not named or any(LATENCY.search(argument) for argument in argv)


class WarmProcess:
    """A forked trial with what is used of a Popen.

    Attributes:
        pid: of the process, which leads its process group.
        returncode: as Popen's; None while it runs.
        lost: whether the fork server has ended, and the trial with it.
    """

    def __init__(self, stage: WarmStage) -> None:
        self.stage, self.pid = stage, stage.pid
        self.returncode: int | None = None
        self.lost = False

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the process ends."""
        return self.stage.task.fileno()

    def poll(self) -> int | None:
        """Return the exit code, minus a signal's number, or None while it runs."""
        return self.wait() if self.returncode is None and self.stage.ended() else self.returncode

    def wait(self) -> int:
        """Wait for the end and return the exit code, or minus the number of the signal that ended it."""
        if self.returncode is None:
            try:
                self.returncode = self.stage.wait()
            except ServerDiedError:
                self.returncode, self.lost = -signal.SIGKILL, True
        return self.returncode
