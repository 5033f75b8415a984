import contextlib
import random
import threading
import time
from collections.abc import Callable

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


class Clock:
    """Stands in for the module time: it passes while somebody sleeps, and only then."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.ticked: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.ticked()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("kondense.store.lease.time", found)
    return found


@pytest.mark.parametrize("abandoned", ["00000001-dead", f"{CHOOSING}-dead"])
def test_the_ticket_of_a_dead_holder_is_removed_after_the_lease(abandoned: str, clock: Clock) -> None:
    board = Board()
    board.post(abandoned)
    with hold(board, "key", lease_s=0.4, wait_s=5):
        assert 0.4 < clock.now_s < 1.0
    assert board.tickets == {}


def test_a_live_holder_that_posts_anew_is_not_taken_for_dead(clock: Clock) -> None:
    board = Board()
    board.post("00000001-alive")
    clock.ticked = lambda: board.post("00000001-alive")
    with pytest.raises(StoreError, match="in use by others"), hold(board, "key", lease_s=0.4, wait_s=1.2):
        pass
    assert clock.now_s > 1.2
    assert list(board.tickets) == ["00000001-alive"]


def test_a_lease_is_good_for_half_of_the_time_after_which_others_take_over(clock: Clock) -> None:
    lease = TimedLease("key", 0.2)
    clock.sleep(0.09)
    lease.check()
    clock.sleep(0.02)
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
