"""What a stage took: time and the peak of the memory of its process. Stdlib only."""

import contextlib
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from kondense.errors import ShortfallError
from kondense.logging import LOG

MEGA = 10**6
_workers_bytes = [0]  # of the largest group of processes in the block
TOOK = re.compile(r"took ([\d.]+) s and at most (\d+) MB of memory")


def resident_bytes(field: str = "VmRSS") -> int:
    """Return the resident memory of this process, or its peak so far where the system tells no more.

    Args:
        field: of Linux's /proc/self/status: ``VmRSS``, or ``VmHWM`` for the peak.
    """
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss starts at the size of the parent there, VmHWM at that of this program
        for line in status.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident_peak_bytes() -> int:
    """Return the peak resident memory of this process."""
    return resident_bytes("VmHWM")


def shared_bytes() -> int:
    """Return the resident memory that this process shares with others, such as code; 0 where the system does not tell.

    Source: smaps_rollup in Linux's Documentation/filesystems/proc.rst.
    """
    rollup = Path("/proc/self/smaps_rollup")
    lines = rollup.read_text().splitlines() if rollup.is_file() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Shared_Clean:", "Shared_Dirty:")))


def workers_took(peak_bytes: int) -> None:
    """Count memory of processes that the block of ``usage_told`` started: the sum of what each added at its peak."""
    _workers_bytes[0] = max(_workers_bytes[0], peak_bytes)


@contextlib.contextmanager
def usage_told() -> Iterator[None]:
    """Log what the block took, if it ends well or falls short, as the line that ``read_usage`` reads."""
    began = time.monotonic()
    _workers_bytes[0] = 0
    try:
        yield
    except ShortfallError:  # the outputs are written
        _tell(began)
        raise
    _tell(began)


def _tell(began: float) -> None:
    peak = -(-(resident_peak_bytes() + _workers_bytes[0]) // MEGA)
    LOG.info(f"took {time.monotonic() - began:.1f} s and at most {peak} MB of memory")


def read_usage(line: str) -> tuple[float, int] | None:
    """Return seconds and bytes of a line of a stage's output; None if it is another line."""
    match = TOOK.fullmatch(line)
    return (float(match[1]), MEGA * int(match[2])) if match else None
