"""The reason of a failed trial, kept in its store, because Katib's condition says only that it failed."""

import contextlib

from kondense import failure
from kondense.errors import EXPECTED
from kondense.failure import LONGEST
from kondense.store.open import open_store
from kondense.store.store import NotFoundError, Store

FILE_BYTES = 2**20  # of a reason; only its beginning is shown


def failure_key(trial: str) -> str:
    """Return the key below ``store_uri`` of the reason of a failed trial."""
    return f"failures/{trial}.txt"


def kept_reason(store: Store, trial: str) -> str:
    """Return the reason that a failed trial has written to its store, in one line; empty if there is none.

    Raises:
        StoreError: the store cannot be reached.
    """
    try:
        text = store.read(failure_key(trial), limit_bytes=FILE_BYTES).decode(errors="replace")
    except NotFoundError:
        return ""
    return failure.one_line(text[:LONGEST]) if text.strip() else ""


def keep_reason(store_uri: str, trial: str, error: BaseException) -> None:
    """Write the reason of a failure to the trial's store, as one line, if it has a store and a name."""
    if not store_uri or not trial:
        return
    line = failure.one_line(error)
    if not isinstance(error, EXPECTED):
        line = f"{type(error).__name__}: {line}"
    with contextlib.suppress(OSError):  # the store may be the reason
        open_store(store_uri).write(failure_key(trial), f"{line}\n".encode())
