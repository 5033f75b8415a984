import contextlib
import random
import threading
import time

import pytest
from kondense.store.lease import CHOOSING, TimedLease, hold
from kondense.store.store import StoreError

from tests.support.store_suite import in_threads


class Board:
    """Tickets in memory; every access may be delayed, as over a network."""

    def __init__(self, most_delay_s: float = 0.0) -> None:
        self.tickets: dict[str, str] = {}
        self.postings = 0
        self.lock = threading.Lock()
        self.most_delay_s = most_delay_s
        self.rng = random.Random(0)

    @contextlib.contextmanager
    def delayed(self):
        time.sleep(self.rng.uniform(0, self.most_delay_s))
        with self.lock:
            yield
        time.sleep(self.rng.uniform(0, self.most_delay_s))

    def post(self, ticket: str) -> None:
        with self.delayed():
            self.postings += 1
            self.tickets[ticket] = str(self.postings)

    def posted(self) -> dict[str, str]:
        with self.delayed():
            return dict(self.tickets)

    def remove(self, ticket: str) -> None:
        with self.delayed():
            self.tickets.pop(ticket, None)


def test_never_two_holders() -> None:
    board = Board(most_delay_s=0.004)
    inside: list[int] = []
    most: list[int] = []

    def work(index: int) -> None:
        for _ in range(4):
            with hold(board, "key", lease_s=30, wait_s=60):
                inside.append(index)
                most.append(len(inside))
                time.sleep(0.002)
                inside.remove(index)

    assert in_threads(6, work) == []
    assert most == [1] * 24
    assert board.tickets == {}


@pytest.mark.parametrize("abandoned", ["00000001-dead", f"{CHOOSING}-dead"])
def test_the_ticket_of_a_dead_holder_is_removed_after_the_lease(abandoned: str) -> None:
    board = Board()
    board.post(abandoned)
    began_s = time.monotonic()
    with hold(board, "key", lease_s=0.4, wait_s=5):
        assert time.monotonic() - began_s > 0.4
    assert board.tickets == {}


def test_a_live_holder_that_posts_anew_is_not_taken_for_dead() -> None:
    board = Board()
    board.post("00000001-alive")
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(0.1):
            board.post("00000001-alive")

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(StoreError, match="in use by others"), hold(board, "key", lease_s=0.4, wait_s=1.2):
            pass
    finally:
        stop.set()
        thread.join()
    assert list(board.tickets) == ["00000001-alive"]


def test_a_lease_is_good_for_half_of_the_time_after_which_others_take_over() -> None:
    lease = TimedLease("key", 0.2)
    lease.check()
    time.sleep(0.11)
    with pytest.raises(StoreError, match=r"exclusive use of key is limited to 0.1 s, but"):
        lease.check()


def test_the_ticket_goes_when_the_holder_fails() -> None:
    board = Board()
    with pytest.raises(KeyError), hold(board, "key", lease_s=30, wait_s=5):
        raise KeyError
    assert board.tickets == {}


def test_tickets_that_stale_listings_lack_do_not_pile_up() -> None:
    class Stale(Board):
        looks = 0

        def posted(self) -> dict[str, str]:
            self.looks += 1
            return {} if self.looks <= 10 else super().posted()

    board = Stale()
    with hold(board, "key", lease_s=30, wait_s=60):
        assert len(board.tickets) == 1
    assert board.tickets == {}


def test_foreign_names_among_the_tickets_are_no_numbers():
    class Bucket:
        def __init__(self):
            self.marks = {"other": "1", "99999999999999999999999-x": "1", "zz-1": "1", "\u0661-x": "1"}

        def post(self, ticket):
            self.marks[ticket] = "own"

        def posted(self):
            return dict(self.marks)

        def remove(self, ticket):
            self.marks.pop(ticket, None)

    with hold(Bucket(), "key", lease_s=30.0, wait_s=0.0):
        pass
