"""The one logger, `kondense`: silent in the library, lines on standard output in commands and containers.

A library's user shows them with `logging.basicConfig(level=logging.INFO)`.
"""

import contextlib
import logging
from collections.abc import Iterator

from kondense.printable import printable

WARNING = "warning: "  # a progress display shows lines that begin so
LOG = logging.getLogger("kondense")
LOG.addHandler(logging.NullHandler())


class StdoutHandler(logging.Handler):
    """Prints each record as one line, flushed; warnings begin with ``warning:``.

    A line feed in a name that a file gives would begin a line of its own, which Katib could take for a metric.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record."""
        print((WARNING if record.levelno >= logging.WARNING else "") + printable(record.getMessage()), flush=True)


@contextlib.contextmanager
def to_stdout() -> Iterator[None]:
    """Print the logger's lines while the block runs; nested blocks print them once."""
    if any(isinstance(handler, StdoutHandler) for handler in LOG.handlers):
        yield
        return
    handler, level, propagate = StdoutHandler(), LOG.level, LOG.propagate
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False  # kfp's executor configures the root logger
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        LOG.propagate = propagate


def silent() -> None:
    """Undo ``to_stdout`` in a process that was forked within its block."""
    for handler in [each for each in LOG.handlers if isinstance(each, StdoutHandler)]:
        LOG.removeHandler(handler)
    LOG.setLevel(logging.NOTSET)
    LOG.propagate = True
