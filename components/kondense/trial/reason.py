"""Where a failed trial keeps its reason: Katib's own condition says only that it failed."""

import contextlib

from kondense import failure
from kondense.errors import EXPECTED
from kondense.store.open import open_store


def failure_key(trial: str) -> str:
    """Return where below ``store_uri`` the reason of a failed trial is kept."""
    return f"failures/{trial}.txt"


def keep_reason(store_uri: str, trial: str, error: BaseException) -> None:
    """Write why the trial fails to its store, as one line; without a store or a name there is no place for it."""
    if not store_uri or not trial:
        return
    line = failure.one_line(error)
    if not isinstance(error, EXPECTED):
        line = f"{type(error).__name__}: {line}"
    with contextlib.suppress(OSError):  # the store may be the very reason
        open_store(store_uri).write(failure_key(trial), f"{line}\n".encode())
