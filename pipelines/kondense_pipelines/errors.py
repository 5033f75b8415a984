"""Report expected errors of the ``kondense`` command."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import typer
from kondense.errors import EXPECTED, exit_code_of, extras_named
from kondense.failure import one_line

ENDING = (signal.SIGTERM, signal.SIGHUP)  # a machine or a closed terminal ends the command


class EndedError(SystemExit):
    """A signal ends the command; not an Exception, so that only cleaning up stands in its way."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.reason = f"stopped by {signal.Signals(number).name}; the same command continues."


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Print expected errors in one line and exit with their code (``kondense.errors``); 128 + n after signal n."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a closed terminal says so more than once
        raise EndedError(number)

    heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # under nohup not SIGHUP
    previous = {number: signal.signal(number, end) for number in heeded}
    try:
        with extras_named():
            yield
    except EXPECTED as error:
        fail(error, exit_code_of(error))
    except KeyboardInterrupt:
        fail("stopped; the same command continues.", 130)
    except EndedError as ended:
        fail(ended.reason, int(ended.code or 0))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def fail(error: object, code: int) -> None:
    """Print one line and exit with ``code``."""
    print(f"error: {one_line(error)}", file=sys.stderr)
    raise typer.Exit(code)
