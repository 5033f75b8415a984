"""Report expected errors of the ``kondense`` command."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import typer
from kondense.errors import EXPECTED, exit_code_of, extras_named
from kondense.failure import one_line
from typer.core import TyperGroup
from typer.exceptions import TyperException

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


class Commands(TyperGroup):
    """Commands that report a wrong command line in one line, as all other bad input."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the options of the group."""
        with usage_reported():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Read the options of the command, and run it."""
        with usage_reported():
            return super().invoke(ctx)


@contextlib.contextmanager
def usage_reported() -> Iterator[None]:
    """Print an error of the command line in one line, with the command that tells the options, and exit."""
    try:
        yield
    except TyperException as error:
        context, cause = getattr(error, "ctx", None), error.__cause__ or error.__context__
        text = error.format_message().rstrip(".")
        if problems := getattr(cause, "errors", None):  # of pydantic, whose texts do not give the value
            text += f", but got {problems()[0]['input']!r}"
        fail(f"{text}{f'; see {context.command_path} --help' if context else ''}.", error.exit_code)


def fail(error: object, code: int) -> None:
    """Print one line and exit with ``code``."""
    print(f"error: {one_line(error)}", file=sys.stderr)
    raise typer.Exit(code)
