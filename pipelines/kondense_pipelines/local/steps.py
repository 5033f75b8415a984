"""How a step ends, who is told, and what is said when it fails. Stdlib only."""

import dataclasses
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from kondense.errors import KondenseError

EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*(?:Error|Exception|Interrupt))(?:: (.*))?")
# Errors whose text says rule and value, so that the type adds nothing.
PLAIN_ERRORS = ("ValueError", "ArtifactError", "StoreError", "NotFoundError", "OSError", "NonFiniteLossError")


class StepError(KondenseError, RuntimeError):
    """A step failed; the text is one line with the step, the reason and its log."""


@dataclasses.dataclass(frozen=True)
class StepResult:
    """How one step ended.

    Attributes:
        name: its display name.
        reused: True when its outputs came from the cache.
        seconds: wall time.
        outputs: the paths of its output artifacts by name.
    """

    name: str
    reused: bool
    seconds: float
    outputs: Mapping[str, Path]


class Observer(Protocol):
    """Who is told how the run goes."""

    def started(self, step: str) -> None:
        """A step has begun."""

    def line(self, step: str, text: str) -> None:
        """A step has printed a line."""

    def finished(self, result: StepResult) -> None:
        """A step has ended well."""


def failure_line(step: str, code: int | None, lines: Sequence[str], log: Path) -> str:
    """Return one line that says which step failed, why, and where to read more.

    Args:
        step: its name.
        code: its exit code; minus a signal's number, or 128 plus it, when a signal ended it.
        lines: the end of its output.
        log: where the whole output is.
    """
    number = -code if code is not None and code < 0 else (code or 0) - 128
    if number in set(signal.Signals):
        reason = f"it was ended by {signal.Signals(number).name}; the same command continues the run"
    else:
        reason = error_in(lines) or f"it ended with exit code {code}"
    return f"step {step!r} failed: {reason} (log: {log})"


def error_in(lines: Sequence[str]) -> str:
    """Return the last error that ``lines`` of a process's output tell, without its traceback; empty if none."""
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
        if match := EXCEPTION.fullmatch(line.strip()):
            name, text = match.groups()
            return text if text and name in PLAIN_ERRORS else line.strip()
    return ""
