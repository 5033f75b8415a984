"""Mutual exclusion with put, list and delete only, for stores without conditional writes.

A process that wants a key posts a ticket in the key's folder; the lowest ticket holds the key. If a holder dies, its
ticket remains: the others remove a ticket that has not been renewed for ``lease_s`` seconds, and a live holder stops
writing well before.

Source: Lamport 1974, "A new solution of Dijkstra's concurrent programming problem" (the bakery): a ticket's number
is one above all visible ones, and no process enters while another is choosing. Deviation: the time limit.
"""

import contextlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Protocol

from kondense.store.store import Lease, StoreError

CHOOSING = "choosing"
TICKET = re.compile(r"(\d{8,18})-", re.ASCII)
POLL_S = 0.05


class Tickets(Protocol):
    """The tickets posted for one key. A listing shows all tickets posted before it began."""

    def post(self, ticket: str) -> None:
        """Post ``ticket``, or renew it."""

    def posted(self) -> Mapping[str, str]:
        """Return every posted ticket with a mark that each posting changes."""

    def remove(self, ticket: str) -> None:
        """Remove ``ticket`` if it exists."""


class TimedLease(Lease):
    """A held ticket, valid for half of the time after which others consider it abandoned."""

    def __init__(self, key: str, lease_s: float) -> None:
        self.key = key
        self.lease_s = lease_s
        self.since_s = time.monotonic()

    def check(self) -> None:
        """Raise StoreError if the time is over."""
        held_s = time.monotonic() - self.since_s
        if held_s > self.lease_s / 2:
            raise StoreError(
                f"exclusive use of {self.key} is limited to {self.lease_s / 2:g} s, but {held_s:.1f} s have passed;"
                " nothing was written; try again."
            )


@contextlib.contextmanager
def hold(tickets: Tickets, key: str, *, lease_s: float, wait_s: float) -> Iterator[Lease]:
    """Wait for ``key`` and hold it exclusively during the block.

    Args:
        tickets: the tickets of this key.
        key: its address, for messages.
        lease_s: a ticket that has not been renewed for this time counts as abandoned.
        wait_s: maximum time to wait.

    Raises:
        StoreError: others held the key for ``wait_s`` seconds.
    """
    deadline_s = time.monotonic() + wait_s
    ticket = None
    try:
        while True:
            ticket = _take_ticket(tickets, lease_s)
            if ticket and _wait_for_turn(tickets, ticket, lease_s=lease_s, deadline_s=deadline_s):
                lease = TimedLease(key, lease_s)
                tickets.post(ticket)
                break
            if ticket:
                tickets.remove(ticket)  # it may stand, though a stale listing lacked it
            if time.monotonic() > deadline_s:
                raise StoreError(f"{key} was in use by others for {wait_s:g} s; try again later.")
        yield lease
    finally:
        if ticket:
            tickets.remove(ticket)


def _take_ticket(tickets: Tickets, lease_s: float) -> str | None:
    """Post a ticket and return it; None if that took so long that others may consider it abandoned."""
    owner = uuid.uuid4().hex
    began_s = time.monotonic()
    choosing = f"{CHOOSING}-{owner}"
    tickets.post(choosing)
    try:
        numbers = [int(match[1]) for match in map(TICKET.match, tickets.posted()) if match]
        ticket = f"{max(numbers, default=0) + 1:08d}-{owner}"
        tickets.post(ticket)
    finally:
        tickets.remove(choosing)
    if time.monotonic() - began_s > lease_s / 2:
        tickets.remove(ticket)
        return None
    return ticket


def _wait_for_turn(tickets: Tickets, ticket: str, *, lease_s: float, deadline_s: float) -> bool:
    """Return whether the ticket became the lowest before the deadline and before others removed it."""
    seen: dict[str, tuple[str, float]] = {}
    renewed_s = time.monotonic()
    while True:
        now_s = time.monotonic()
        posted = tickets.posted()
        if ticket not in posted:
            return False
        before = [other for other in posted if other != ticket and (other < ticket or other.startswith(CHOOSING))]
        if not before:
            return True
        if now_s > deadline_s:
            return False
        for other in before:
            mark, since_s = seen.get(other, ("", now_s))
            if mark != posted[other]:
                seen[other] = (posted[other], now_s)
            elif now_s - since_s > lease_s:
                tickets.remove(other)
        if now_s - renewed_s > lease_s / 4:
            tickets.post(ticket)
            renewed_s = now_s
        time.sleep(POLL_S)
