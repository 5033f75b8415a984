"""Ctrl-C while threads work."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def ctrl_c_noticed() -> Iterator[Callable[[], bool]]:
    """Notice the first Ctrl-C of the block instead of raising it; the next one is raised.

    Python raises KeyboardInterrupt between any two steps of the main thread: where it had just taken a lock that the
    threads need, they would wait for it for ever, and the program for them.

    Yields:
        Whether Ctrl-C was pressed; never in another thread, or where somebody else handles it.
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed: list[int] = []

    def notice(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, notice)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, usual)
