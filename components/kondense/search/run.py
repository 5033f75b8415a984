"""One search: its definition, and its trials as a sequence of events that a journal may store."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np

from kondense.errors import InputError
from kondense.search.goals import Goals, Objective, read_goals
from kondense.search.history import Goal, History, Status, Trial
from kondense.search.hyperband import read_plan
from kondense.search.journal import Journal
from kondense.search.ledger import SETTING
from kondense.search.numbers import number
from kondense.search.pareto import nondominated
from kondense.search.pbt import PARENT
from kondense.search.space import SearchSpace
from kondense.search.state import UNFINISHED, VALUED
from kondense.search.suggesters import Suggester

FAILURES = (Status.FAILED, Status.METRICS_UNAVAILABLE)


class Outcome(StrEnum):
    """State of a search; the words are those of an Experiment's conditions, except for the interruption."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    INTERRUPTED = "Interrupted"


@dataclass
class TrialRecord:
    """One trial and its result; times are seconds since 1970."""

    name: str
    assignments: Mapping[str, str]
    status: Status = Status.CREATED
    reason: str = ""  # of a failure, or of a missing value
    value: float | None = None  # of the objective, finite
    metrics: Mapping[str, str] = field(default_factory=dict)  # all reported metrics
    curve: Sequence[float] = ()  # reports of the objective, in order
    parent: str = ""  # the trial whose files this one continues
    started: float | None = None
    ended: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the trial has ended."""
        return self.status not in UNFINISHED

    @property
    def seconds(self) -> float | None:
        """Wall time of the trial."""
        return None if self.started is None or self.ended is None else self.ended - self.started


@dataclass(frozen=True)
class Search:
    """The definition of a search.

    Args:
        name: of the experiment.
        algorithm: name of the suggester.
        suggester: the suggester.
        space: the parameters, the resource among them.
        settings: of the algorithm.
        metric: name of the objective.
        goal: direction of the objective.
        target: value of the objective that ends the search.
        max_trials: number of trials that ends the search.
        max_failed: number of failed trials that ends the search.
        parallel: trials at a time.
        seed: for suggesters without the setting random_state.
    """

    name: str
    algorithm: str
    suggester: Suggester
    space: SearchSpace
    settings: Mapping[str, str] = field(default_factory=dict)
    metric: str = "value"
    goal: Goal = "minimize"
    target: float | None = None
    max_trials: int | None = None
    max_failed: int | None = None
    parallel: int | None = None
    seed: int = 0

    def validate(self) -> None:
        """Raise a ValueError, giving rule and value, if the space, a setting or a count breaks a rule."""
        counts = {"max_trial_count": self.max_trials, "parallel_trial_count": self.parallel}
        self.suggester.validate(self.space, self.settings, **counts)

    @property
    def resource_name(self) -> str:
        """The parameter that is the resource; empty without one."""
        return self.settings.get("resource_name", "")

    @cached_property
    def max_resource(self) -> float | None:
        """The resource of the highest rung; None without one."""
        return float(read_plan(self.space, self.settings)[0].max_resource) if self.resource_name else None

    def resource(self, trial: TrialRecord) -> float | None:
        """Return a trial's resource; None without one."""
        return float(trial.assignments[self.resource_name]) if self.resource_name else None

    def history(
        self, trials: tuple[Trial, ...] = (), issued: str = "", wanted: Callable[[], bool] = lambda: True
    ) -> History:
        """Return a suggester's input for the reported trials and the ledger."""
        return History(trials, issued, self.goal, self.name, self.max_trials, self.goals, wanted)

    @cached_property
    def goals(self) -> Goals | None:
        """Several objectives or constraints; None with one objective and no constraint."""
        return read_goals(self.settings, self.metric, self.goal)

    def numbers(self, trial: TrialRecord) -> dict[str, float]:
        """Return the finite numbers among a trial's metrics, by name."""
        found = {name: number(text) for name, text in trial.metrics.items()}
        return {name: value for name, value in {**found, self.metric: trial.value}.items() if value is not None}

    def best(self, trials: Iterable[TrialRecord]) -> TrialRecord | None:
        """Return the best trial at the largest resource reached; the first of equals; None without any value.

        With several objectives it is the one of the front that is best in the first; with constraints one that keeps
        them, and if none does, the one that breaks them least.
        """
        sign = -1.0 if self.goal == "maximize" else 1.0
        if self.goals is not None:
            trials = self.front(trials)
        valued = [
            (-(self.resource(trial) or 0.0), sign * trial.value, trial) for trial in trials if trial.value is not None
        ]
        return min(valued, key=lambda entry: entry[:2], default=(0, 0, None))[2]

    def front(self, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Return the trials at the largest resource reached that keep the constraints and that no other one dominates.

        Without constraints and further objectives it is the best one. If none keeps the constraints, it is the one that
        breaks them least. Trials that lack the value of an objective do not count.
        """
        goals = self.goals or Goals((Objective(self.metric, self.goal),))
        trials = [trial for trial in trials if trial.value is not None]
        largest = max((self.resource(trial) or 0.0 for trial in trials), default=0.0)
        trials = [trial for trial in trials if (self.resource(trial) or 0.0) == largest]
        width = len(goals.objectives)
        rows = np.array([goals.row(self.numbers(trial)) for trial in trials]).reshape(len(trials), -1)
        places = goals.losses(rows) if trials else np.empty(0)
        if not np.isfinite(places).any():
            return []
        kept = np.flatnonzero(np.isfinite(places) & (rows[:, width:] <= 0).all(axis=1))
        if not kept.size:
            return [trials[int(np.argmin(places))]]
        front = kept[nondominated(rows[kept, :width])]
        return [trials[index] for index in sorted(front, key=lambda index: tuple(rows[index, :width]))]

    def feasible(self, trial: TrialRecord) -> bool:
        """Return whether a trial keeps the constraints; one without the value of a constraint does not."""
        return self.goals is None or self.goals.feasible(self.numbers(trial))

    def reaches_target(self, trials: Iterable[TrialRecord]) -> bool:
        """Return whether a trial, with whatever resource, reaches the target, as Katib's controller decides."""
        values = [trial.value for trial in trials if trial.value is not None]
        if self.target is None or not values:
            return False
        return max(values) >= self.target if self.goal == "maximize" else min(values) <= self.target

    def trial_line(self, trial: TrialRecord) -> str:
        """Return a trial's result in one line."""
        words = [trial.name, trial.status.value.replace("_", " ")]
        words += [f"{self.metric}={trial.value:.6g}{self._at(trial)}"] if trial.value is not None else []
        words += [f"in {trial.seconds:.1f} s"] if trial.seconds is not None else []
        words += [f"({trial.reason})"] if trial.reason else []
        return " ".join(words)

    def headline(self, trials: Iterable[TrialRecord]) -> str:
        """Return the progress of the search in one line."""
        trials = list(trials)
        ended, running = (
            sum(trial.finished for trial in trials),
            sum(trial.status is Status.RUNNING for trial in trials),
        )
        parts = [f"{self.name} ({self.algorithm}): {ended}{f'/{self.max_trials}' if self.max_trials else ''} trials"]
        parts += [f"{running} running"] if running else []
        failed = sum(trial.status in FAILURES for trial in trials)
        parts += [f"{failed} failed"] if failed else []
        if best := self.best(trials):
            parts.append(f"best {self.metric}={best.value:.6g}{self._at(best)}")
        return ", ".join(parts)

    def _at(self, trial: TrialRecord) -> str:
        return f" at {self.resource(trial):g} {self.resource_name}" if self.resource_name else ""


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
                self.apply(event)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"event {line} of the journal must fit those before it, but {type(error).__name__}: {error}: the"
                    " file is damaged; choose another path or remove it."
                ) from None
        self.cut_off()

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
