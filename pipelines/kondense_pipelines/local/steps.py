"""The results of steps, the observer of a run, and the line that reports a failed step. Stdlib only."""

import dataclasses
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from kondense.artifacts.failed import Failed
from kondense.errors import KondenseError

EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*(?:Error|Exception|Interrupt))(?:: (.*))?")
# Errors whose text gives rule and value, so that their type adds nothing.
PLAIN_ERRORS = ("ValueError", "ArtifactError", "StoreError", "NotFoundError", "OSError", "NonFiniteLossError")


class StepError(KondenseError, RuntimeError):
    """A step failed, and the run with it; the text is one line with step, reason and log.

    Args:
        text: the line.
        exit_code: of the run: 2 if the step refused its input.
    """

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclasses.dataclass(frozen=True)
class StepResult:
    """The result of one step.

    Attributes:
        name: its display name.
        reused: whether its outputs came from the cache.
        seconds: wall time.
        outputs: the paths of its output artifacts by name.
        failed: why it has no model, if its candidate failed.
        log: the file of its output; None if it was reused.
        memory_bytes: peak of its process; 0 if it was reused.
    """

    name: str
    reused: bool
    seconds: float
    outputs: Mapping[str, Path]
    failed: Failed | None = None
    log: Path | None = None
    memory_bytes: int = 0


class Observer(Protocol):
    """Called during a run."""

    def started(self, step: str) -> None:
        """Called at the start of a step."""

    def line(self, step: str, text: str) -> None:
        """Called with each line that a step prints."""

    def finished(self, result: StepResult) -> None:
        """Called after a step has ended, and the run goes on."""


def failure_line(step: str, code: int | None, lines: Sequence[str], log: Path) -> str:
    """Return one line with the step that failed, the reason and the log.

    Args:
        step: its name.
        code: its exit code; minus a signal's number, or 128 plus it, if a signal ended it.
        lines: the end of its output.
        log: the file of its output.
    """
    return f"step {step!r} failed: {reason_for(code, lines)} (log: {log})"


def reason_for(code: int | None, lines: Sequence[str]) -> str:
    """Return why a step's process ended, from its exit code and the end of its output."""
    if number := signal_of(code):
        why = ", as the kernel does when memory is short" if number == signal.SIGKILL else ""
        return f"it was ended by {signal.Signals(number).name}{why}; the same command continues the run"
    return error_in(lines) or f"it ended with exit code {code}"


def signal_of(code: int | None) -> int:
    """Return the number of the signal that ended a process, from its exit code; 0 if none did."""
    number = -code if code is not None and code < 0 else (code or 0) - 128
    return number if number in set(signal.Signals) else 0


def error_in(lines: Sequence[str]) -> str:
    """Return the last error in the lines of a process's output, without its traceback; empty if there is none."""
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
        if match := EXCEPTION.fullmatch(line.strip()):
            name, text = match.groups()
            return text if text and name in PLAIN_ERRORS else line.strip()
    return ""
