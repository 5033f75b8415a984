"""The execution of a search: its trials as a sequence of events that a journal may store."""

import os
import re
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from kondense.errors import InputError
from kondense.search.definition import FAILURES, Search, TrialRecord
from kondense.search.history import History, Status, Trial
from kondense.search.journal import Journal
from kondense.search.ledger import SETTING
from kondense.search.pbt import PARENT
from kondense.search.state import VALUED

__all__ = ["FAILURES", "Outcome", "Run", "Search", "TrialRecord"]

TRIAL = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]*")  # no path leads out of the directory of the trials


class Outcome(StrEnum):
    """State of a search; the words are those of an Experiment's conditions, except for the interruption."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    INTERRUPTED = "Interrupted"


class Run:
    """The execution of a search on this machine, built from the events in its journal.

    Attributes:
        search: the definition.
        trials: by name, in order of issue.
        finished: trials in order of ending.
        settings: the algorithm's settings and those that its suggester stores.
        baseline: a trial outside of the search, for comparison.
    """

    def __init__(self, search: Search, journal: Journal | None = None) -> None:
        """Start without trials, or with those in the journal; trials that were running there start again."""
        self.search = search
        self._journal = journal
        self.trials: dict[str, TrialRecord] = {}
        self.finished: list[TrialRecord] = []
        self.baseline: TrialRecord | None = None
        self.settings: dict[str, str] = dict(search.settings)
        for line, event in enumerate(journal.events if journal else (), start=2):  # after the header
            try:
                self._check(event)
                self.apply(event)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"event {line} of the journal must fit those before it, but {type(error).__name__}: {error}: the"
                    " file is damaged; choose another path or remove it."
                ) from None
        self.cut_off()

    def _check(self, event: Mapping[str, Any]) -> None:
        """Raise ValueError unless a journal's trials are of this search: they become paths and words of commands."""
        listed = event["trials"] if event["event"] == "suggested" else [event] if event["event"] == "baseline" else []
        for item in listed:
            if not TRIAL.fullmatch(item["name"]):
                raise InputError(f"a trial's name must match {TRIAL.pattern}, but got {ascii(item['name'])[:80]}")
            self.search.space.check(item["assignments"])

    def record(self, event: str, **fields: Any) -> None:
        """Append an event to the journal, then apply it."""
        entry = {"event": event, **fields, "time": round(time.time(), 3)}
        if self._journal:
            self._journal.append(entry)
        self.apply(entry)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Change the state by one event."""
        if event["event"] == "suggested":
            for item in event["trials"]:
                self.trials[item["name"]] = TrialRecord(
                    item["name"], item["assignments"], parent=item.get("parent", "")
                )
            for name, (kept, tail) in event["settings"].items():
                self.settings[name] = self.settings.get(name, "")[:kept] + tail
        elif event["event"] == "baseline":
            self.baseline = TrialRecord(event["name"], event["assignments"])
        elif event["event"] == "started":
            trial = self.trial(event["name"])
            trial.status, trial.started = Status.RUNNING, event["time"]
        elif event["event"] == "finished":
            trial = self.trial(event["name"])
            trial.status, trial.reason, trial.ended = Status(event["status"]), event["reason"], event["time"]
            trial.value = event["value"] if trial.status in VALUED else None
            trial.metrics, trial.curve = event.get("metrics", {}), tuple(event.get("curve", ()))
            if trial is not self.baseline:
                self.finished.append(trial)

    def trial(self, name: str) -> TrialRecord:
        """Return a trial, or the baseline."""
        return self.baseline if self.baseline is not None and name == self.baseline.name else self.trials[name]

    def cut_off(self) -> None:
        """Return all running trials to those that have not started."""
        for trial in [*self.trials.values(), *([self.baseline] if self.baseline else [])]:
            if trial.status is Status.RUNNING:
                trial.status, trial.started = Status.CREATED, None

    def startable(self, parallel: int) -> list[TrialRecord]:
        """Return the trials to start, as many as `parallel` and the number of trials allow.

        Trials that have been suggested and not started come first; the suggester provides the others.
        """
        running = sum(trial.status is Status.RUNNING for trial in self.trials.values())
        room = parallel - running
        if self.search.max_trials is not None:
            room = min(room, self.search.max_trials - len(self.finished) - running)
        waiting = [trial for trial in self.trials.values() if trial.status is Status.CREATED]
        if len(waiting) < room:
            self._suggest(room - len(waiting))
            waiting = [trial for trial in self.trials.values() if trial.status is Status.CREATED]
        return waiting[: max(room, 0)]

    def _suggest(self, count: int) -> None:
        search = self.search
        suggestion = search.suggester.suggest(search.space, self.settings, search.seed, self.history(), count)
        new = {item.name for item in suggestion.proposals} - {*self.trials}
        if not len(suggestion.proposals) == len(new) == count:
            raise InputError(
                f"suggester {search.algorithm} must return exactly {count} trials with new names, "
                f"but returned {[item.name for item in suggestion.proposals]}."
            )
        trials = [
            {"name": item.name, "assignments": dict(item.assignments)}
            | ({"parent": item.labels[PARENT]} if PARENT in item.labels else {})
            for item in suggestion.proposals
        ]
        self.record("suggested", trials=trials, settings=self.settings_change(suggestion.settings))

    def settings_change(self, settings: Mapping[str, str]) -> dict[str, tuple[int, str]]:
        """Return the changes of a reply to the settings: for each name the length of the kept prefix and the rest.

        The ledger of 10,000 trials has 40 kB; storing it in full with every reply would take 400 MB.
        """
        change = {}
        for name, value in settings.items():
            kept = len(os.path.commonprefix([self.settings.get(name, ""), value]))
            if name not in self.settings or self.settings[name] != value:
                change[name] = (kept, value[kept:])
        return change

    def history(self) -> History:
        """Return the suggester's input, the same as Katib's controller would send.

        The controller omits trials without metrics. With them a search could learn a little more here than on a
        cluster, but the same Experiment would propose other trials.
        """
        known = [trial for trial in self.trials.values() if trial.status is not Status.METRICS_UNAVAILABLE]
        numbers = self.search.numbers if self.search.goals else lambda trial: {}
        trials = tuple(
            Trial(trial.name, trial.assignments, trial.status, trial.value, numbers(trial)) for trial in known
        )
        return self.search.history(trials, self.settings.get(SETTING, ""))

    def outcome(self) -> tuple[Outcome, str]:
        """Return the state of the search and its reason.

        Source: updateTrialsSummary and UpdateExperimentStatusCondition in status_util.go of Katib 0.19. Deviations: a
        value that is not a finite number never becomes the best (Katib uses the latest such trial), and with a resource
        only the trials at the largest one compete (Katib mixes them).
        """
        search = self.search
        if search.reaches_target(self.trials.values()):
            return Outcome.SUCCEEDED, f"the goal {search.target:g} is reached"
        failed = sum(trial.status in FAILURES for trial in self.trials.values())
        if search.max_failed is not None and failed and failed >= search.max_failed:
            return Outcome.FAILED, f"{failed} trial(s) failed, which reaches the limit of {search.max_failed}"
        if search.max_trials is not None and len(self.finished) >= search.max_trials:
            return Outcome.SUCCEEDED, f"all {search.max_trials} trials have ended"
        return Outcome.RUNNING, ""

    def best(self) -> TrialRecord | None:
        """Return the best trial at the largest resource reached; the earliest of equals."""
        return self.search.best(self.finished)

    def headline(self) -> str:
        """Return the progress of the search in one line."""
        return self.search.headline(self.trials.values())
