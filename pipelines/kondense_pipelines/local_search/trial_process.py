"""One trial as a process group on this machine, with its deadline and its retries."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kondense.katib.template import SIGNAL_BASE, TrialCommand

from kondense_pipelines.local_search import guard
from kondense_pipelines.local_search.reports import FirstReports
from kondense_pipelines.local_search.warm_trials import WarmProcess, WarmTrials

Process = subprocess.Popen[bytes] | WarmProcess

GRACE_S = 10.0  # between SIGTERM and SIGKILL
LAST_LINE = 200  # characters of a failed trial's last line of output
TAIL_BYTES = 4096  # of the output that are searched for that line
OUT_OF_MEMORY = 137  # 128 + SIGKILL, the exit code of a container killed for memory


@dataclass
class TrialProcess:
    """A started trial.

    Args:
        command: the command.
        directory: of ``output.log``.
        working_directory: of the command.
        warm: forks the trial if it can; the guard starts any other.
    """

    command: TrialCommand
    directory: Path
    working_directory: Path
    warm: WarmTrials | None = None
    started: float = field(default_factory=time.monotonic)
    attempt: int = 0
    seen: FirstReports = field(default_factory=FirstReports)  # of the current attempt
    _workers: list[Process] = field(default_factory=list)
    _process: Process | None = None
    _lifeline: int = -1
    _exit: int = -1  # descriptor that becomes readable when a process that was not forked ends

    def start(self) -> None:
        """Start the next attempt; its output replaces that of the previous one."""
        self.attempt += 1
        self._start()

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.seen = FirstReports()
        reader, self._lifeline = os.pipe()
        self._process = self._started(self.command, self.log, reader)
        self._workers = [
            self._started(worker, self.directory / f"output-{number}.log", reader)
            for number, worker in enumerate(self.command.workers, start=1)
        ]
        os.close(reader)
        if not isinstance(self._process, WarmProcess):
            self._exit = os.pidfd_open(self._process.pid)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the trial's process ends."""
        return self._process.fileno() if isinstance(self._process, WarmProcess) else self._exit

    def _started(self, command: TrialCommand, log: Path, lifeline: int) -> Process:
        directory = command.working_directory or self.working_directory
        with log.open("wb") as output:
            if self.warm is not None and not self.command.workers:
                forked = self.warm.fork(command.argv, command.environment, directory, output.fileno())
                if forked is not None:
                    return forked
            return subprocess.Popen(
                [sys.executable, "-S", guard.__file__, str(lifeline), *command.argv],
                cwd=directory,
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,  # Katib's collector reads both streams too
                pass_fds=[lifeline],
                start_new_session=True,
            )

    def poll(self) -> str | None:
        """Return None while the trial is running, then the reason of its failure or "" for success."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return self._failure()
        self._end_group()
        if isinstance(self._process, WarmProcess) and self._process.lost:
            self._start()  # it has not failed: what ended is the server that it was forked from
            return None
        if code == 0:
            return ""
        if self.attempt < self.command.attempts and not self.command.fails(code):
            self.start()
            return None
        return _reason(code) + self._last_line()

    def _failure(self) -> str | None:
        """Kill a running trial that is too late or has lost a replica, and return the reason; None if it goes on."""
        deadline = self.command.deadline_s
        if deadline is not None and time.monotonic() - self.started > deadline:
            self.kill()
            return f"DeadlineExceeded: ran longer than activeDeadlineSeconds={deadline:g}"
        for number, worker in enumerate(self._workers, start=1):
            if worker.poll():
                self.kill()
                return f"replica {number}: {_reason(worker.poll() or 0)}; see output-{number}.log"
        return None

    def stop(self) -> None:
        """Send SIGTERM to the trial."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process group and wait for its end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._end_group()

    def running(self) -> bool:
        """Return whether the process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """The file with the output of the last attempt."""
        return self.directory / "output.log"

    def _last_line(self) -> str:
        """Return the last line of the output, for the reason of a failure."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
        printed = [line.strip() for line in lines if line.strip()]
        return f"; its last line: {printed[-1][:LAST_LINE]}" if printed else ""

    def _signal(self, number: signal.Signals) -> None:
        for process in self._all():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)

    def _all(self) -> list[Process]:
        return [*([self._process] if self._process is not None else []), *self._workers]

    def _end_group(self) -> None:
        """Kill the remaining processes of the groups, as the end of a pod does, and close the lifeline."""
        for process in self._all():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if process is not self._process:
                process.wait()
        for descriptor in (self._lifeline, self._exit):
            if descriptor >= 0:
                os.close(descriptor)
        self._lifeline = self._exit = -1


def wait_for_one(processes: Iterable[TrialProcess], seconds: float) -> None:
    """Wait until one of some trials has ended, for a time at most."""
    select.select(list(processes), [], [], seconds)


def _reason(code: int) -> str:
    if code < 0:
        code = SIGNAL_BASE - code
    if code == OUT_OF_MEMORY:
        return f"exit status {code}: killed (SIGKILL), usually because memory ran out"
    if code > SIGNAL_BASE and code - SIGNAL_BASE in {int(number) for number in signal.Signals}:
        return f"exit status {code}: ended by {signal.Signals(code - SIGNAL_BASE).name}"
    return f"exit status {code}"
