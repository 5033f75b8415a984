"""The events of a search, one JSON object per line: written before they take effect, read after a kill.

Every line is on the disk before `append` returns. A kill can leave only the last line incomplete; it is removed, as
is a line for which the disk had no space.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from kondense.errors import InputError
from kondense.json_text import SHOWN, json_object

FORMAT_VERSION = 2


NUMBER = (int, float)
EVENTS: Mapping[str, Mapping[str, tuple[type, ...]]] = {  # the fields of events and their types; others may follow
    "suggested": {"trials": (list,), "settings": (dict,)},
    "baseline": {"name": (str,), "assignments": (dict,)},
    "started": {"name": (str,), "time": NUMBER},
    "finished": {"name": (str,), "time": NUMBER, "status": (str,), "reason": (str,), "value": (*NUMBER, type(None))},
}
OPTIONAL = ("value",)


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
            except InputError:
                event = {}
            if not _is_event(event):
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
                f"{self._path} must have format_version {FORMAT_VERSION}, but got"
                f" {ascii(stored.get('format_version'))[:SHOWN]}."
            )
        if stored.get("experiment") != experiment:
            stated = ascii(stored.get("experiment"))[:SHOWN]
            raise JournalError(
                f"{self._path} must belong to this search, but its digest is {stated}, not {experiment!r}: choose"
                " another path. Only the trial counts may change between two starts."
            )


def _is_event(event: Mapping[str, Any]) -> bool:
    """Return whether an event has the fields of its kind; whether it fits those before it, the search decides."""
    if not isinstance(event.get("event"), str):
        return False
    fields = EVENTS.get(event["event"], {})
    if not all(
        type(event.get(name)) in kinds for name, kinds in fields.items() if name in event or name not in OPTIONAL
    ):
        return False
    proposed = event["trials"] if event["event"] == "suggested" else [event] if event["event"] == "baseline" else []
    return all(_is_proposed(each) for each in proposed)


def _is_proposed(trial: Any) -> bool:
    if not isinstance(trial, dict) or type(trial.get("name")) is not str or type(trial.get("assignments")) is not dict:
        return False
    return all(type(value) is str for value in trial["assignments"].values())
