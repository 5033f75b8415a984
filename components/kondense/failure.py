"""Report why a container fails: one line in its log and in its pod's status. Stdlib only.

Kubernetes keeps a container's termination log: `kubectl describe pod` and the pages of Katib, Argo and KFP show it,
even when the log is gone.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from kondense.errors import EXPECTED, exit_code_of
from kondense.printable import printable

TERMINATION_LOG = Path("/dev/termination-log")  # Kubernetes' default; it exists in pods only
SHORT = 80  # characters of a line that a page's box shows, "error: " included
LONGEST = 4000  # bytes of a termination log; Kubernetes keeps 4,096
PREFIX = "error: "


def report_failure(reason: object, *, termination_log: Path = TERMINATION_LOG) -> None:
    """Print why this process fails, as one line.

    In a pod the termination log gets it too, and a long reason is preceded by its beginning, which fits a page's box.
    """
    lines = [one_line(reason)]
    if termination_log.exists():
        if len(PREFIX + lines[0]) > SHORT:
            lines.insert(0, shortened(lines[0]))
        with contextlib.suppress(OSError):  # the container's log has it in any case
            termination_log.write_bytes("\n".join(lines).encode()[:LONGEST] + b"\n")
    for line in lines:
        print(PREFIX + line, file=sys.stderr, flush=True)


def one_line(reason: object) -> str:
    """Return a reason as one line; for an error without text, the name of its type."""
    return printable(" ".join(str(reason).split())) or type(reason).__name__


def shortened(line: str) -> str:
    """Return the beginning of a line that fits a page's box, cut after a word if that keeps half of it."""
    room = SHORT - len(PREFIX) - len("...")
    if len(line) <= room + len("..."):
        return line
    words = line[:room].rpartition(" ")[0]
    return f"{words if 2 * len(words) > room else line[:room]}..."


@contextlib.contextmanager
def reporting_failures() -> Iterator[None]:
    """Report an expected error of the block and exit with its code; any other exception keeps its traceback."""
    try:
        yield
    except EXPECTED as error:
        report_failure(error)
        raise SystemExit(exit_code_of(error)) from None
