"""Wall time and processor time of a block, those of its ended child processes included."""

import resource
import time
from collections.abc import Callable
from typing import NamedTuple


class Spent(NamedTuple):
    """Seconds of wall time and of processor time."""

    wall_s: float
    cpu_s: float


def spent(work: Callable[[], None]) -> Spent:
    """Return what ``work`` takes; its worker processes must have ended with it."""
    began, before = time.perf_counter(), _cpu_s()
    work()
    return Spent(time.perf_counter() - began, _cpu_s() - before)


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
