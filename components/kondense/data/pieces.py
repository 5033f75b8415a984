"""A folder of a store as a local one whose files are empty until they are needed."""

import collections
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kondense.data.locate import opened, wanted_keys
from kondense.data.patience import patiently, wait_seconds
from kondense.scratch import scratch_directory
from kondense.store.open import open_store

AT_ONCE = 32  # files that are brought together
THREADS = 8
KEPT_BYTES = 2**30  # of files that stay, for those that are read twice
Bring = Callable[[Sequence[Path]], None]  # makes files complete before they are read


def present(paths: Sequence[Path]) -> None:
    """Bring nothing: the files of a local folder are complete."""


class Pieces:
    """The files of a store in the local folder ``root``, where each is brought before it is read.

    The oldest files become empty again when they exceed ``kept_bytes``. A worker process, which reads each of its files
    once, keeps none, and leaves those alone that others have brought.
    """

    def __init__(self, address: str, root: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self.address, self.root, self.kept_bytes = address, root, kept_bytes
        self.kept: collections.OrderedDict[Path, int] = collections.OrderedDict()
        self.wait_s = wait_seconds()
        self.process, self.store = os.getpid(), open_store(address)

    def bring(self, paths: Sequence[Path]) -> None:
        """Fetch the files at ``paths`` that are not there.

        Raises:
            StoreError: the store was away for longer than the time to wait, or refused.
            OSError: the disk is full.
        """
        if os.getpid() != self.process:  # a connection is of one process
            self.process, self.store, self.kept_bytes = os.getpid(), open_store(self.address), 0
            self.kept.clear()
        lacking = [path for path in dict.fromkeys(paths) if not path.stat().st_size]
        for path in paths:
            if path in self.kept:
                self.kept.move_to_end(path)
        with ThreadPoolExecutor(THREADS) as pool:
            for path, _ in zip(lacking, pool.map(self._fetch, lacking), strict=True):
                self.kept[path] = path.stat().st_size
        held = sum(self.kept.values())
        for path in [*self.kept][: max(0, len(self.kept) - len(paths))]:
            if held <= self.kept_bytes:
                break
            os.truncate(path, 0)
            held -= self.kept.pop(path)

    def _fetch(self, path: Path) -> None:
        key = path.relative_to(self.root).as_posix()
        patiently(lambda: self.store.download_file(key, path), self.store.address(key), self.wait_s)


@contextlib.contextmanager
def opened_in_pieces(source: str, wanted: Callable[[str], bool]) -> Iterator[tuple[Path, Bring]]:
    """Yield ``source`` as a local directory, and the function that brings files of it before they are read.

    Args:
        source: a directory, or the URI of a prefix in a store, which is listed.
        wanted: tells by its base name whether a file belongs to the data.

    Raises:
        SourceError: the directory does not exist, or the prefix holds no file of the data.
        StoreError: the store cannot be reached.
    """
    if "://" not in source:
        with opened(source, wanted) as directory:
            yield directory, present
        return
    with scratch_directory("source") as scratch:
        store = open_store(source)
        for key, is_wanted in wanted_keys(store, source, wanted):
            path = scratch / key
            path.parent.mkdir(parents=True, exist_ok=True)  # also without data in it, as a local folder would be
            if is_wanted:
                path.touch()
        yield scratch, Pieces(source, scratch).bring


def in_parts(paths: Sequence[Path], bring: Bring) -> Iterator[Path]:
    """Yield ``paths``, each complete until the next is asked for."""
    for start in range(0, len(paths), AT_ONCE):
        part = paths[start : start + AT_ONCE]
        bring(part)
        yield from part
