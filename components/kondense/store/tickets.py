"""Tickets for the keys of a bucket (see ``lease``)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kondense.store.bucket import ObjectStore


class ObjectTickets:
    """The tickets for one key of a bucket: objects in a reserved folder (see lease.Tickets)."""

    def __init__(self, store: "ObjectStore", key: str) -> None:
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
