"""The events of a search, one JSON object per line: written before they take effect, read after a kill.

Every line is on the disk before `append` returns. A kill can leave only the last line incomplete; it is removed, as
is a line for which the disk had no space.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict

from kondense.artifacts.schema import check_fields
from kondense.errors import InputError
from kondense.json_text import json_object

FORMAT_VERSION = 2


class Event(TypedDict):
    """Any event."""

    event: str


class Proposed(TypedDict):
    """A trial that was suggested."""

    name: str
    assignments: dict[str, str]


class Suggested(TypedDict):
    """Trials, and changes of the settings by name: the length of the prefix that is kept, and what follows it."""

    trials: list[Proposed]
    settings: dict[str, list[Any]]


class Started(TypedDict):
    """The start of a trial."""

    name: str
    time: float


class Finished(TypedDict):
    """The end of a trial."""

    name: str
    time: float
    status: str
    reason: str
    value: NotRequired[float | None]
    metrics: NotRequired[dict[str, Any]]


EVENTS: Mapping[str, type] = {"suggested": Suggested, "baseline": Proposed, "started": Started, "finished": Finished}


class JournalError(InputError):
    """A journal is damaged, in use, or belongs to another search."""


class Journal:
    """An append-only file that one process at a time holds.

    Attributes:
        events: content of the file when it was opened, without its header.

    Raises:
        JournalError: see its docstring; the text names the file and the remedy.
    """

    def __init__(self, path: Path, *, experiment: str) -> None:
        """Open or start a journal.

        Args:
            path: the file; its directory is made.
            experiment: a digest of everything that must not change between two starts.
        """
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)  # no part of a failed line may be kept for a later one
        try:
            self._lock()
            self.events = self._read()
            self._check_header(experiment)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        """Return the journal; the end of the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, event: dict[str, Any]) -> None:
        """Write one event; it is on the disk when this returns.

        Raises:
            OSError: the disk is full or not writable; the journal is unchanged and can be continued.
        """
        line = json.dumps(event, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(size)
            message = f"{error.strerror}; the earlier events are complete, and the same command continues from them."
            raise OSError(error.errno, message, str(self._path)) from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"{self._path} must not be in use, but another search uses it: wait for it or choose another path."
            ) from None

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            self._file.truncate(complete)
        events = []
        for number, line in enumerate(content[:complete].splitlines(), start=1):
            try:
                event = json_object(line, "an event")
                check_fields("an event", event, EVENTS.get(str(event.get("event")), Event))
            except InputError:
                event = None
            if event is None:
                raise JournalError(
                    f"{self._path}:{number} must be an event of a search as JSON, but got {line[:80]!r}: "
                    "the file is damaged; choose another path or remove it."
                )
            events.append(event)
        return events

    def _check_header(self, experiment: str) -> None:
        header = {"event": "run", "format_version": FORMAT_VERSION, "experiment": experiment}
        if not self.events:
            self.append(header)
            return
        stored = self.events.pop(0)
        if stored.get("format_version") != FORMAT_VERSION:
            raise JournalError(
                f"{self._path} must have format_version {FORMAT_VERSION}, but got {stored.get('format_version')}."
            )
        if stored.get("experiment") != experiment:
            raise JournalError(
                f"{self._path} must belong to this search, but its digest is {stored.get('experiment')}, not "
                f"{experiment}: choose another path. Only the trial counts may change between two starts."
            )
