"""Return freed memory to the system; glibc keeps it for later blocks, which other processes then lack. Stdlib only."""

import contextlib
import ctypes
import gc

M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 2**20  # mallopt(3); bytes


def return_large_blocks() -> None:
    """Return the large blocks of this process to the system when they are freed, at the price of page faults.

    glibc raises its threshold for mappings of their own with each large block that is freed. Later blocks lie on the
    heap, where small ones between them keep them from being used again: a worker grew by one or two of its batches of
    10 MB with each.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def trim() -> None:
    """Return what is free on the heap to the system, cycles of dead objects included.

    What is alive is left out of later collections: with torch and its exporter loaded, each walks half a million
    objects, 0.3 s.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
