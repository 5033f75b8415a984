"""Tickets for the keys of a bucket (see ``lease``)."""

from collections.abc import Iterator
from typing import Protocol

from minio.datatypes import Object


class Bucket(Protocol):
    """What tickets need of a bucket; reserved names are allowed."""

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``."""

    def remove(self, key: str) -> None:
        """Remove ``key``, if it is there."""

    def entries(self, folder: str) -> Iterator[tuple[str, Object]]:
        """Yield every key in ``folder`` and below with its entry of the listing."""


class ObjectTickets:
    """The tickets for one key of a bucket: objects in a reserved folder (see lease.Tickets)."""

    def __init__(self, store: Bucket, key: str) -> None:
        self.store = store
        self.folder = f".leases/{key}"
        self.postings = 0

    def post(self, ticket: str) -> None:
        """Post ``ticket``, or renew it."""
        self.postings += 1  # changes content, ETag and therefore the mark
        self.store.put(f"{self.folder}/{ticket}", str(self.postings).encode())

    def posted(self) -> dict[str, str]:
        """Return every posted ticket with its mark."""
        entries = self.store.entries(self.folder)
        return {key.rpartition("/")[2]: f"{entry.etag} {entry.last_modified}" for key, entry in entries}

    def remove(self, ticket: str) -> None:
        """Remove ``ticket``."""
        self.store.remove(f"{self.folder}/{ticket}")
