"""Return freed memory to the system; glibc keeps it for later blocks, which other processes then lack. Stdlib only."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator

M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 2**20  # mallopt(3); bytes


def return_large_blocks() -> None:
    """Return the large blocks of this process to the system when they are freed, at the price of page faults.

    glibc raises its threshold for mappings of their own with each large block that is freed. Later blocks lie on the
    heap, where small ones between them keep them from being used again: a worker grew by one or two of its batches of
    10 MB with each.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def trim(*, kept: bool = False) -> None:
    """Return what is free on the heap to the system, cycles of dead objects included.

    Args:
        kept: leave what lives out of later collections: each walks the half a million objects of torch and its
            exporter, 0.3 s. Only for a process of our own, since what dies of it in cycles is never freed.
    """
    gc.collect()
    if kept:
        gc.freeze()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def uncollected(*, kept: bool = False) -> Iterator[None]:
    """Look for no cycles of dead objects in the block, which loads libraries.

    That takes a quarter of the time in which torch and its exporter are imported, and finds next to nothing.

    Args:
        kept: leave what lives at the end out of later collections, too (see ``trim``).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if kept:
            gc.freeze()
        if enabled:
            gc.enable()
