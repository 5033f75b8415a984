"""A trial that fails on a full disk has given no answer: the search ends, and the same command tries it again."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

ROOM_BYTES = 4 * 2**20  # less than what a trial writes into the store at once


def check_room(directories: Iterable[Path], trial: str, failure: str) -> None:
    """Raise OSError if one of the ``directories`` is on a full disk, so that a trial's failure there is not kept."""
    for directory in directories:
        if directory.exists() and (free := shutil.disk_usage(directory).free) < ROOM_BYTES:
            text = (
                f"{os.strerror(errno.ENOSPC)} at {directory}: {free:,} bytes are free, but trials need {ROOM_BYTES:,}; "
                f"{trial} failed and does not count ({failure}): the same command tries it again"
            )
            raise OSError(errno.ENOSPC, text)
