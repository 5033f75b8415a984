"""Temporary directories that no killed process leaves for ever. Stdlib only.

Each is locked while the process that made it lives, or a child forked from it; the next one that is made in the same
place removes those that nobody locks. `kondense run` and `search` hold the directory of their results besides, and
all temporary files of what they start lie below it.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kondense.removal import remove_directory

PREFIX = "kondense-scratch-"


@contextlib.contextmanager
def scratch_directory(purpose: str, *, place: Path | None = None, beside: Path | None = None) -> Iterator[Path]:
    """Yield a new directory of this user's, which is removed after the block.

    Args:
        purpose: a word in its name.
        place: where it lies; by default where ``tempfile`` has its files.
        beside: in the place of ``place``, the file or directory beside which it lies, hidden and on the same disk.

    Raises:
        OSError: it cannot be made.
    """
    path, lock = claim(purpose, place=place, beside=beside)
    try:
        yield path
    finally:
        release(path, lock)


def claim(purpose: str, *, place: Path | None = None, beside: Path | None = None) -> tuple[Path, int]:
    """Return a new directory, as ``scratch_directory`` makes it, and what to give to ``release``."""
    place = beside.parent if beside is not None else place or Path(tempfile.gettempdir())
    prefix = PREFIX if beside is None else f".{beside.name}.{purpose}-"
    _sweep(place, prefix)
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-" if beside is None else prefix, dir=place))
        # Another process may take it for one that was left, as long as nobody locks it.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            if _locked(descriptor) is not False and path.exists():
                return path, descriptor
            os.close(descriptor)


def release(path: Path, lock: int) -> None:
    """Remove a directory that was claimed."""
    remove_directory(path, ignore_errors=True)
    os.close(lock)


def _sweep(place: Path, prefix: str) -> None:
    """Remove what killed processes of this user left in ``place``."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with contextlib.suppress(OSError):
                    _remove_abandoned(Path(entry.path))


def _remove_abandoned(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid() and _locked(descriptor):
            remove_directory(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool | None:
    """Lock a directory and return True; False if another process has locked it, None where nothing can be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network disk without locks: nothing is removed from it either
        return None
    return True
