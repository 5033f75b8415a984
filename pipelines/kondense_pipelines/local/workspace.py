"""The directory of one run: held by one process at a time, with the scratch space of all that the run starts.

Processes that are killed leave their temporary files. Here all of them lie below the run's directory, so that the next
run on it, or beside it, finds and removes them. Stdlib only.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kondense.errors import InputError
from kondense.files import check_writable
from kondense.removal import remove_directory

LOCK, SCRATCH = ".kondense-lock", ".kondense-scratch"
# A socket's path has at most 107 bytes (unix(7)), of which multiprocessing needs 32 behind the directory.
LONGEST_SCRATCH = 70
PATIENCE_S = 1.0  # a run that sweeps beside this one holds the lock for moments


@contextlib.contextmanager
def run_directory(directory: Path) -> Iterator[Path]:
    """Hold ``directory`` during the block and let all temporary files of this process and its children lie below it.

    What killed runs left in this directory and in those beside it is removed, never what belongs to a living run. The
    lock ends with this process. Where the path is too long for sockets, a directory of the system's takes its place.

    Args:
        directory: of the run's results, created if necessary.

    Yields:
        The scratch directory.

    Raises:
        InputError: it is a file, or another process holds it.
        OSError: it cannot be written.
    """
    directory = directory.absolute()
    check_writable(directory)
    created = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    lock = _held(directory / LOCK, PATIENCE_S)
    if lock is None:
        raise InputError(
            f"--output {directory} must not be in use, but another run uses it: wait for it, or choose another one."
        )
    with lock:
        _sweep_beside(directory)
        scratch = scratch_of(directory)
        remove_directory(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        try:
            with _temporary_files_in(scratch):
                yield scratch
        finally:
            remove_directory(scratch, ignore_errors=True)
            (directory / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # they hold something
                for path in created:  # and stayed empty, because the input was refused
                    path.rmdir()


def scratch_of(directory: Path) -> Path:
    """Return the scratch directory of the run in ``directory``, an absolute path."""
    inside = directory / SCRATCH
    if len(os.fsencode(inside)) <= LONGEST_SCRATCH:
        return inside
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path(os.environ.get("TMPDIR") or "/tmp") / f"kondense-{os.getuid()}-{name}"


def _held(path: Path, patience_s: float) -> BinaryIO | None:
    """Return the locked file at ``path``, created if necessary; None if another process keeps it locked."""
    deadline_s = time.monotonic() + patience_s
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            if time.monotonic() >= deadline_s:
                return None
            time.sleep(0.05)
            continue
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its former holder has removed it meanwhile


def _sweep_beside(directory: Path) -> None:
    """Remove what killed runs left in the directories beside ``directory``."""
    for path in directory.parent.glob(f"*/{LOCK}"):
        if path.parent == directory:
            continue
        with contextlib.suppress(OSError):  # another user's
            if lock := _held(path, 0.0):
                with lock:
                    remove_directory(scratch_of(path.parent), ignore_errors=True)
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _temporary_files_in(scratch: Path) -> Iterator[None]:
    previous, kept = os.environ.get("TMPDIR"), tempfile.tempdir  # tempfile keeps what it has read once
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    try:
        yield
    finally:
        tempfile.tempdir = kept
        if previous is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = previous
