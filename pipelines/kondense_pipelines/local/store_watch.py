"""The watch over the embedded object store: a gateway that dies during its use is started again, at the same port."""

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kondense.logging import LOG
from kondense.store.store import StoreError

from kondense_pipelines.local import store

RESTARTS = 5  # in one use; a gateway that keeps dying needs a person
PAUSE_S = 0.5  # after the first restart; longer after each further one


@contextlib.contextmanager
def watched_store(
    directory: Path, environment: Mapping[str, str] = os.environ, notice: Callable[[str], None] = LOG.warning
) -> Iterator[dict[str, str]]:
    """Provide the store of ``store.local_store`` during the block, and keep the embedded one running.

    Args:
        directory: of the embedded store.
        environment: the variables, among them perhaps MINIO_ENDPOINT.
        notice: called with a line each time that the gateway was started again.
    """
    with store.local_store(directory, environment) as variables:
        watch = None if environment.get("MINIO_ENDPOINT") else StoreWatch(directory.absolute(), notice)
        if watch:
            watch.start()
        try:
            yield variables
        finally:
            if watch:
                watch.close()


def settled(directory: Path) -> store.Process | None:
    """Return the gateway of ``directory``, which another process uses or this one, started again if it has ended."""
    with store.locked(directory), contextlib.suppress(StoreError, OSError):
        if not store.recorded(directory)[1]:
            store.ensure_running(directory, anywhere=False)
    return store.recorded(directory)[1]


class StoreWatch(threading.Thread):
    """A thread that waits for the end of the gateway in ``directory`` and starts it again.

    Clients that wait for an answer meanwhile ask again, for some seconds (``kondense.store.connection``).

    Args:
        directory: of the embedded store.
        notice: called with a line each time.
    """

    def __init__(self, directory: Path, notice: Callable[[str], None]) -> None:
        super().__init__(name="store watch", daemon=True)
        self.directory, self.notice = directory, notice
        self.restarts = 0
        self._awake, self._wake = os.pipe()

    def run(self) -> None:
        """Wait and start again, until ``close``."""
        while self._ended() and self.restarts < RESTARTS:
            with store.locked(self.directory):
                if self._closed():
                    return
                try:
                    store.ensure_running(self.directory, anywhere=False)
                except (StoreError, OSError) as error:
                    text = f"the object store ended and cannot be started again: {error}"
                else:
                    text = "the object store ended and was started again"
            self.restarts += 1
            self.notice(text)
            select.select([self._awake], [], [], PAUSE_S * self.restarts)

    def close(self) -> None:
        """End the watch."""
        os.close(self._wake)
        self.join()
        os.close(self._awake)

    def _closed(self) -> bool:
        return bool(select.select([self._awake], [], [], 0.0)[0])

    def _ended(self) -> bool:
        """Wait until the gateway has ended, or the watch; return whether it was the gateway."""
        _, process = store.recorded(self.directory)
        try:
            gateway = os.pidfd_open(process.pid) if process else None
        except ProcessLookupError:
            gateway = None
        if gateway is None:
            return not self._closed()
        try:
            ready, _, _ = select.select([self._awake, gateway], [], [])
        finally:
            os.close(gateway)
        return self._awake not in ready
