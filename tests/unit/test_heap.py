"""Collections of dead objects around what loads libraries."""

import gc
import weakref

import pytest
from kondense.heap import trim, uncollected


class Node:
    """An object that holds itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def nothing_stays_frozen():
    yield
    gc.unfreeze()


def test_objects_of_a_user_that_die_later_are_still_collected():
    node = Node()
    gone = weakref.ref(node)
    with uncollected():
        trim()
    del node
    gc.collect()
    assert gone() is None


def test_what_a_process_of_our_own_has_loaded_is_left_alone():
    node = Node()
    kept = weakref.ref(node)
    with uncollected(kept=True):
        assert not gc.isenabled()
    assert gc.isenabled()
    del node
    gc.collect()
    assert kept() is not None


def test_no_collection_begins_in_the_block():
    begun = []

    def note(phase, _):
        begun.append(phase)

    gc.callbacks.append(note)
    try:
        with uncollected():
            made = [Node() for _ in range(10_000)]
            assert not begun and made
    finally:
        gc.callbacks.remove(note)
