"""What is known of a local run: its trials, its outcome, its best configuration.

The rules are the experiment controller's: updateTrialsSummary and UpdateExperimentStatusCondition in
status_util.go of Katib 0.19. Deviations: a value that is no finite number never becomes the best (Katib takes
the latest such trial), and of a search with a resource only the trials at the largest one compete (Katib mixes them).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kondense.katib.metrics import Observation, number
from kondense.katib.spec import Experiment
from kondense.search.history import History, Status, Trial
from kondense.search.ledger import SETTING

FAILURES = (Status.FAILED, Status.METRICS_UNAVAILABLE)


class Outcome(StrEnum):
    """Where a run stands; the words are those of an Experiment's conditions, but for the interruption."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    INTERRUPTED = "Interrupted"


@dataclass
class TrialRecord:
    """One trial and what became of it; times are seconds since 1970."""

    name: str
    assignments: Mapping[str, str]
    labels: Mapping[str, str]
    status: Status = Status.CREATED
    reason: str = ""
    value: float | None = None  # of the objective, finite
    metrics: Mapping[str, str] = field(default_factory=dict)  # as picked by the strategies
    started: float | None = None
    ended: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the trial has ended."""
        return self.status not in (Status.CREATED, Status.RUNNING)

    @property
    def seconds(self) -> float | None:
        """How long the trial ran."""
        return None if self.started is None or self.ended is None else self.ended - self.started


class State:
    """A run, put together from the events of its journal.

    Attributes:
        trials: by name, in order of issue.
        finished: names in order of ending.
        settings: the algorithm's settings, the suggester's own included.
        baseline: the trial that the best one is held against; it is none of ``trials``.
    """

    def __init__(self, experiment: Experiment) -> None:
        """Start with no trial."""
        self.experiment = experiment
        self.trials: dict[str, TrialRecord] = {}
        self.finished: list[str] = []
        self.baseline: TrialRecord | None = None
        self.settings: dict[str, str] = dict(experiment.settings)
        self.resource_name = experiment.settings.get("resource_name")

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the journal."""
        if event["event"] == "suggested":
            for item in event["trials"]:
                self.trials[item["name"]] = TrialRecord(item["name"], item["assignments"], item["labels"])
            for name, (kept, tail) in event["settings"].items():
                self.settings[name] = self.settings.get(name, "")[:kept] + tail
        elif event["event"] == "baseline":
            self.baseline = TrialRecord(event["name"], event["assignments"], {})
        elif event["event"] == "started":
            record = self.record(event["name"])
            record.status, record.started = Status.RUNNING, event["time"]
        elif event["event"] == "finished":
            self._finish(self.record(event["name"]), event)

    def record(self, name: str) -> TrialRecord:
        """Return the record of a trial, or of the baseline."""
        if self.baseline is not None and name == self.baseline.name:
            return self.baseline
        return self.trials[name]

    def records(self) -> list[TrialRecord]:
        """Return every record, the baseline's included."""
        return [*self.trials.values(), *([] if self.baseline is None else [self.baseline])]

    def cut_off(self, name: str) -> None:
        """Put a trial that ended with its runner back among those to start."""
        record = self.record(name)
        record.status, record.started = Status.CREATED, None

    def settings_change(self, settings: Mapping[str, str]) -> dict[str, tuple[int, str]]:
        """Return what a reply changes in the settings: per name, how many characters stay and what follows.

        The ledger of 10,000 trials has 40 kB; writing it whole with every reply would make 400 MB.
        """
        change = {}
        for name, value in settings.items():
            kept = len(os.path.commonprefix([self.settings.get(name, ""), value]))
            if name not in self.settings or self.settings[name] != value:
                change[name] = (kept, value[kept:])
        return change

    def history(self) -> History:
        """Return what a suggester works from: what Katib's controller sends.

        It leaves out trials without metrics. With them a search could learn a little more here than on a cluster,
        but the same file would propose other trials.
        """
        records = [record for record in self.trials.values() if record.status is not Status.METRICS_UNAVAILABLE]
        return History(
            trials=tuple(Trial(record.name, record.assignments, record.status, record.value) for record in records),
            issued=self.settings.get(SETTING, ""),
            goal="maximize" if self.experiment.objective.maximize else "minimize",
            experiment=self.experiment.name,
            max_trials=self.experiment.max_trials,
        )

    def count(self, *statuses: Status) -> int:
        """Return the number of trials with one of these statuses."""
        return sum(record.status in statuses for record in self.trials.values())

    def outcome(self) -> tuple[Outcome, str]:
        """Return where the run stands, and why."""
        goal, best = self.experiment.objective.goal, self.optimum()
        if goal is not None and best is not None and self._reaches(best, goal):
            return Outcome.SUCCEEDED, f"the goal {goal:g} is reached"
        failed, most_failed = self.count(*FAILURES), self.experiment.max_failed
        if most_failed is not None and failed and failed >= most_failed:
            return Outcome.FAILED, f"maxFailedTrialCount={most_failed} is reached: {failed} trial(s) failed"
        if self.experiment.max_trials is not None and len(self.finished) >= self.experiment.max_trials:
            return Outcome.SUCCEEDED, f"maxTrialCount={self.experiment.max_trials} is reached"
        return Outcome.RUNNING, ""

    def optimum(self) -> float | None:
        """Return the best value of all trials, whatever their resource: what Katib holds against the goal."""
        values = [record.value for record in self.trials.values() if record.value is not None]
        if not values:
            return None
        return max(values) if self.experiment.objective.maximize else min(values)

    def resource(self, record: TrialRecord) -> float | None:
        """Return the resource a trial was given, None for a search without one."""
        return float(record.assignments[self.resource_name]) if self.resource_name else None

    def best(self, names: list[str] | None = None) -> TrialRecord | None:
        """Return the best trial at the largest resource reached; the earliest of equals.

        Args:
            names: the finished trials to choose from; all by default.
        """
        chosen: TrialRecord | None = None
        for name in self.finished if names is None else names:
            record = self.trials[name]
            if record.value is not None and (chosen is None or self._beats(record, chosen)):
                chosen = record
        return chosen

    def _beats(self, record: TrialRecord, other: TrialRecord) -> bool:
        mine, theirs = self.resource(record) or 0.0, self.resource(other) or 0.0
        if mine != theirs:
            return mine > theirs
        assert record.value is not None and other.value is not None
        return record.value > other.value if self.experiment.objective.maximize else record.value < other.value

    def _reaches(self, value: float, goal: float) -> bool:
        return value >= goal if self.experiment.objective.maximize else value <= goal

    def _finish(self, record: TrialRecord, event: Mapping[str, Any]) -> None:
        record.status, record.reason, record.ended = Status(event["status"]), event["reason"], event["time"]
        objective = self.experiment.objective
        record.metrics = {
            name: Observation(**observation).picked(objective.strategies[name])
            for name, observation in event["metrics"].items()
        }
        if record.status in (Status.SUCCEEDED, Status.EARLY_STOPPED):
            reported = record.metrics.get(objective.metric, "")
            record.value = number(reported)
            if record.value is None:  # Katib too lets such a trial succeed
                record.reason = f"{objective.metric} is no finite number: {reported!r}"
        if record is not self.baseline:
            self.finished.append(record.name)
