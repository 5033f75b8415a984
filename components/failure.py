"""How a container says why it failed: one line in its log and on its pod's status. Stdlib only.

Kubernetes shows what a container leaves in its termination log: `kubectl describe pod`, Katib's and Argo's pages and
KFP's graph have it, also when the log is gone.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")  # Kubernetes' default; a pod has the file, other machines have none
SHORT = 80  # characters; the width of a box's line in the pages
# What stages raise for bad input, a store that cannot be reached, a training that diverged; anything else is a bug.
EXPECTED = (ValueError, OSError, ArithmeticError)


def tell(reason: object, *, termination_log: Path = TERMINATION_LOG) -> str:
    """Print why this process fails and return it, as one line.

    In a pod a long reason has a line that fits a page's box before it, in the log and in the termination log.
    """
    line = " ".join(str(reason).split())
    lines = [line]
    if termination_log.exists():
        if len(line) > SHORT:
            lines = [f"{line[: SHORT - 3].rsplit(' ', 1)[0]}...", line]
        with contextlib.suppress(OSError):  # the log tells it in any case
            termination_log.write_text("\n".join(lines) + "\n")
    for each in lines:
        print(f"error: {each}", file=sys.stderr, flush=True)
    return line


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Exit with status 1 and one line where the block raises what a stage may raise; a bug keeps its traceback."""
    try:
        yield
    except EXPECTED as error:
        tell(error)
        raise SystemExit(1) from None
