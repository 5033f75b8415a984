"""How a container says why it failed: one line in its log and on its pod's status. Stdlib only.

Kubernetes shows what a container leaves in its termination log: `kubectl describe pod`, Katib's and Argo's pages and
KFP's graph have it, also when the log is gone.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from kondense.errors import EXPECTED, exit_code_of

TERMINATION_LOG = Path("/dev/termination-log")  # Kubernetes' default; a pod has the file, other machines have none
SHORT = 80  # characters of a line that a page's box shows, "error: " included
LONGEST = 4000  # bytes of a termination log; Kubernetes keeps 4,096
PREFIX = "error: "


def tell(reason: object, *, termination_log: Path = TERMINATION_LOG) -> str:
    """Print why this process fails and return it, as one line.

    In a pod a long reason has a line that fits a page's box before it, in the log and in the termination log.
    """
    line = reason_of(reason)
    lines = [line]
    if termination_log.exists():
        if len(PREFIX + line) > SHORT:
            lines = [shortened(line), line]
        with contextlib.suppress(OSError):  # the log tells it in any case
            termination_log.write_bytes("\n".join(lines).encode()[:LONGEST] + b"\n")
    for each in lines:
        print(PREFIX + each, file=sys.stderr, flush=True)
    return line


def reason_of(reason: object) -> str:
    """Return a reason as one line; an error without words is told by its type."""
    return " ".join(str(reason).split()) or type(reason).__name__


def shortened(line: str) -> str:
    """Return the beginning of a line that fits a page's box, cut after a word where that keeps half of it."""
    room = SHORT - len(PREFIX) - len("...")
    begin = line[:room]
    words = begin.rpartition(" ")[0]
    return f"{words if 2 * len(words) > room else begin}..."


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Exit with one line and the error's code where the block raises an expected error; a bug keeps its traceback."""
    try:
        yield
    except EXPECTED as error:
        tell(error)
        raise SystemExit(exit_code_of(error)) from None
