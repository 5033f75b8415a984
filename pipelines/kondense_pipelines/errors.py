"""How the ``kondense`` command reports expected errors."""

import contextlib
import signal
import sys
from collections.abc import Iterator

import typer


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Tell expected errors in one line: exit code 2 for bad input, 1 for what failed, 130 and 143 for signals."""
    from kondense_pipelines.local.steps import StepError

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    except ValueError as error:
        fail(error, 2)
    except (OSError, StepError) as error:  # StoreError is an OSError
        fail(error, 1)
    except KeyboardInterrupt:
        fail("stopped; the same command continues.", 130)


def fail(error: object, code: int) -> None:
    """Print one line and leave with ``code``."""
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    raise typer.Exit(code)
