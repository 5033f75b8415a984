"""Shards of an object store, fetched when they are first read into a bounded directory that all processes share."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from kondense.data.locate import cache_directory
from kondense.data.patience import patiently, wait_seconds
from kondense.data.shards import Folder, Place, ShardError, ShardFile, descriptor_sha256, missing
from kondense.data.workers import whole_number
from kondense.errors import InputError
from kondense.files import scratch_path
from kondense.store.open import local_path, open_store
from kondense.store.store import DamagedError, NotFoundError

CACHE, CACHE_BYTES = "KONDENSE_CACHE", "KONDENSE_CACHE_BYTES"  # environment variables: the cache, its bound in bytes
DEFAULT_BYTES = 16 * 2**30
FULL = (errno.ENOSPC, errno.EDQUOT)


def place_at(address: str) -> Place:
    """Return the shards at a directory, ``file://``, ``s3://bucket/prefix`` or ``minio://bucket/prefix``."""
    path = local_path(address)
    return Cached(address) if path is None else Folder(path)


class Cached:
    """Shards of a store. The oldest files of the cache make room for new ones."""

    def __init__(self, address: str) -> None:
        self.root = address.rstrip("/")
        text = os.environ.get(CACHE, "")
        self.directory = (Path(text).expanduser() if text else cache_directory()) / "shards"
        self.bound = whole_number(CACHE_BYTES, DEFAULT_BYTES)
        self.wait_s = wait_seconds()

    def open(self, shard: ShardFile) -> int:
        """Return a file descriptor of the shard, fetched and verified if the cache does not hold it.

        Raises:
            ShardError: the store has no such shard, or another one.
            StoreError: the store was away for longer than the time to wait.
            InputError: the disk of the cache, or its bound, is too small.
        """
        path = self.directory / f"{shard.sha256}.tar"
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(descriptor).st_size == shard.size:
                return descriptor
            os.close(descriptor)
        if shard.size > self.bound:
            raise InputError(
                f"{CACHE_BYTES} must be at least {shard.size:,}, the size of a shard, but is {self.bound:,}."
            )
        with self._held(path):
            with contextlib.suppress(FileNotFoundError):  # another process has fetched it meanwhile
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                if os.fstat(descriptor).st_size == shard.size and descriptor_sha256(descriptor) == shard.sha256:
                    return descriptor
                os.close(descriptor)
            return self._fetch(shard, path)

    def address(self, shard: ShardFile) -> str:
        """Return the address of the shard in the store."""
        return f"{self.root}/{shard.name}"

    @contextlib.contextmanager
    def _held(self, path: Path) -> Iterator[None]:
        """Fetch a shard in one process at a time; the lock ends with its holder."""
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock")
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _fetch(self, shard: ShardFile, path: Path) -> int:
        self._make_room(shard.size)
        scratch = scratch_path(path)
        try:
            try:
                self._download(shard, scratch)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                self._make_room(self.bound)  # all of it
                self._download(shard, scratch)
            descriptor = os.open(scratch, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _check(descriptor, shard, self.address(shard))
                os.replace(scratch, path)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise InputError(
                f"the cache in {self.directory} must have room for a shard of {shard.size:,} bytes, but its disk is"
                f" full; {CACHE} names another directory."
            ) from error
        finally:
            scratch.unlink(missing_ok=True)

    def _download(self, shard: ShardFile, path: Path) -> None:
        """Download a shard; wait for a store that is away."""
        try:
            patiently(lambda: open_store(self.root).download_file(shard.name, path), f"shard {shard.name}", self.wait_s)
        except NotFoundError:
            raise missing(self.address(shard)) from None
        except DamagedError as error:
            raise ShardError(str(error)) from error

    def _make_room(self, size: int) -> None:
        """Remove the oldest files until ``size`` more bytes are within the bound; those that are open stay readable."""
        entries = []
        for path in self.directory.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
        held = sum(bytes_ for _, bytes_, _ in entries)
        for _, bytes_, path in sorted(entries):
            if held + size <= self.bound:
                return
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
            held -= bytes_


def _check(descriptor: int, shard: ShardFile, address: str) -> None:
    size, digest = os.fstat(descriptor).st_size, descriptor_sha256(descriptor)
    if (size, digest) != (shard.size, shard.sha256):
        raise ShardError(
            f"shard {address} must have {shard.size:,} bytes and sha256 {shard.sha256}, but has {size:,} and {digest}:"
            " it was damaged or changed, or is of another version of the data."
        )
