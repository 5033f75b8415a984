"""The entry points of other distributions: networks, scores, quantizers, stages.

Reading the metadata of all installed distributions takes longer than a step of training, so one reading serves all
groups, and the processes that are forked after it.
"""

import functools
import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path


def of_group(group: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Return the entry points of a group.

    They are read again when `sys.path` or one of its folders has changed.
    """
    return _read(_places()).get(group, ())


def read() -> None:
    """Read all entry points, so that a process that is forked from this one need not."""
    _read(_places())


def _places() -> tuple[tuple[str, int], ...]:
    """Return the entries of `sys.path` with their times of change, nanoseconds."""
    places = []
    for entry in sys.path:
        try:
            places.append((entry, Path(entry).stat().st_mtime_ns))
        except OSError:
            places.append((entry, 0))  # it is not there
    return tuple(places)


@functools.lru_cache(maxsize=1)
def _read(places: tuple[tuple[str, int], ...]) -> Mapping[str, tuple[importlib.metadata.EntryPoint, ...]]:
    points = importlib.metadata.entry_points()
    return {group: tuple(points.select(group=group)) for group in points.groups if group.startswith("kondense.")}
