"""Shards: tar files of encoded images, each read only after its SHA-256 was compared with the index.

A shard is verified when a process first reads it, and again whenever the file is another one or has changed since.
Worker processes share what is known, so that each shard is verified about once.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from kondense.data.picture import shown
from kondense.errors import KondenseError

CHUNK = 1 << 20  # bytes read at a time


class ShardError(KondenseError):
    """A shard is missing, truncated, damaged or of another version; the text names it in one line."""


class ShardFile(NamedTuple):
    """What the index says of a shard: name, size in bytes, SHA-256."""

    name: str
    size: int
    sha256: str


class Place(Protocol):
    """Where shards are: at ``root``, a directory or an address."""

    root: str

    def open(self, shard: ShardFile) -> int:
        """Return a file descriptor of the shard, which need not be the right one; ShardError if there is none."""

    def address(self, shard: ShardFile) -> str:
        """Return where the shard is, for messages."""


class Folder:
    """Shards in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.root = directory, str(directory)

    def open(self, shard: ShardFile) -> int:
        """Return a file descriptor of the shard."""
        try:
            return os.open(f"{self.root}/{shard.name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise missing(self.address(shard)) from None
        except OSError as error:
            raise ShardError(f"shard {self.address(shard)} cannot be read: {os.strerror(error.errno or 0)}.") from error

    def address(self, shard: ShardFile) -> str:
        """Return the path of the shard."""
        return shown(self.directory / shard.name)


class Shards:
    """The shards of one split, verified before they are read.

    Attributes:
        files: what the index says of them.
        place: where they are.
        owner: kept alive as long as they are used.
    """

    def __init__(self, files: Sequence[ShardFile], place: Place, owner: object = None) -> None:
        self.files, self.place, self.owner = tuple(files), place, owner
        self._buffer = bytearray()
        # By shard: device, inode, size and time of the verified file; shared by worker processes.
        self.verified = torch.zeros(len(self.files), 4, dtype=torch.int64).share_memory_().numpy()

    def read(self, number: int, offset: int, length: int) -> memoryview:
        """Return ``length`` bytes at ``offset`` of a shard; the next call overwrites them.

        Raises:
            ShardError: the shard is missing or differs from the index.
        """
        if len(self._buffer) < length:
            self._buffer = bytearray(length)  # kept: new memory costs more than reading does
        content = memoryview(self._buffer)[:length]
        descriptor = self.place.open(self.files[number])
        try:
            self._verify(number, descriptor)
            read = os.preadv(descriptor, [content], offset)
        finally:
            os.close(descriptor)
        if read != length:  # truncated between the check and the reading
            raise self._wrong(number, f"ends at byte {offset + read:,}, but must hold {offset + length:,}")
        return content

    def _verify(self, number: int, descriptor: int) -> None:
        status, expected = os.fstat(descriptor), self.files[number]
        signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if tuple(self.verified[number].tolist()) == signature:
            return
        if status.st_size != expected.size:
            raise self._wrong(number, f"must have {expected.size:,} bytes, but has {status.st_size:,}")
        if (digest := descriptor_sha256(descriptor)) != expected.sha256:
            raise self._wrong(number, f"must have sha256 {expected.sha256}, but has {digest}")
        self.verified[number] = signature

    def _wrong(self, number: int, text: str) -> ShardError:
        address = self.place.address(self.files[number])
        return ShardError(f"shard {address} {text}: it was damaged or changed, or is of another version of the data.")


def missing(address: str) -> ShardError:
    """Return the error of a shard that is not there."""
    return ShardError(f"shard {address} is missing: it was deleted, or the index is of another version of the data.")


def descriptor_sha256(descriptor: int) -> str:
    """Return the SHA-256 of a file, whatever its position."""
    digest, offset = hashlib.sha256(), 0
    while content := os.pread(descriptor, CHUNK, offset):
        digest.update(content)
        offset += len(content)
    return digest.hexdigest()
