"""Report expected errors of the ``kondense`` command."""

import contextlib
import signal
import sys
from collections.abc import Iterator

import typer
from kondense.errors import EXPECTED, exit_code_of, extras_named


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Print expected errors in one line and exit with their code (``kondense.errors``); 130 and 143 after signals."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with extras_named():
            yield
    except EXPECTED as error:
        fail(error, exit_code_of(error))
    except KeyboardInterrupt:
        fail("stopped; the same command continues.", 130)


def fail(error: object, code: int) -> None:
    """Print one line and exit with ``code``."""
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    raise typer.Exit(code)
