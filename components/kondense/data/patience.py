"""Fetch from a store that may be away for a while."""

import time
from collections.abc import Callable

from kondense.data.workers import whole_number
from kondense.logging import LOG
from kondense.store.store import StoreError

WAIT = "KONDENSE_STORE_WAIT_S"  # environment variable
DEFAULT_WAIT_S = 600
PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # between attempts, doubled each time


def wait_seconds() -> int:
    """Return for how many seconds a store that is away is waited for.

    Raises:
        InputError: the variable of the environment is no whole number.
    """
    return whole_number(WAIT, DEFAULT_WAIT_S)


def patiently(fetch: Callable[[], None], what: str, wait_s: float) -> None:
    """Call ``fetch``, again while the store is away.

    Args:
        fetch: raises StoreError.
        what: it fetches, for the log.
        wait_s: seconds to wait; the attempt that is under way may take longer.

    Raises:
        StoreError: the store was away for longer, or refused.
    """
    until, pause_s = time.monotonic() + wait_s, PAUSE_S
    while True:
        try:
            return fetch()
        except StoreError as error:
            if not _is_away(error):
                raise
            if time.monotonic() + pause_s > until:
                raise StoreError(f"{error} (waited {wait_s:.0f} s, {WAIT})") from error
            LOG.warning(f"{what}: {error}; next attempt in {pause_s:.0f} s")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _is_away(error: StoreError) -> bool:
    """Return whether a later attempt may succeed: the store cannot be reached, or broke off its answer."""
    from kondense.store.bucket import IncompleteError
    from kondense.store.connection import UnreachableError

    return isinstance(error, IncompleteError) or isinstance(error.__cause__, UnreachableError)
