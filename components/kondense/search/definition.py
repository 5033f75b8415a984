"""The definition of a search, its trials, and which of them are good."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kondense.errors import InputError
from kondense.search.goals import Goals, Objective, read_goals
from kondense.search.history import Goal, History, Status, Trial
from kondense.search.hyperband import read_plan
from kondense.search.numbers import number
from kondense.search.pick import EXPECTED, Pick
from kondense.search.space import SearchSpace
from kondense.search.state import UNFINISHED
from kondense.search.suggesters import Suggester

FAILURES = (Status.FAILED, Status.METRICS_UNAVAILABLE)


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
        pick: the rule by which `best` picks a trial; None: the best in the objective.
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
    pick: Pick | None = None

    def __post_init__(self) -> None:
        if self.pick is not None and self.pick.is_expected and self.goals is not None:
            raise InputError(
                f"pick {EXPECTED} needs one objective and no constraint, but got {', '.join(self.further)}."
            )

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

    @property
    def further(self) -> tuple[str, ...]:
        """The metrics of the goals besides the objective."""
        return tuple(name for name in (self.goals.metrics if self.goals else ()) if name != self.metric)

    def numbers(self, trial: TrialRecord) -> dict[str, float]:
        """Return the finite numbers among a trial's metrics, by name."""
        found = {name: number(text) for name, text in trial.metrics.items()} | {self.metric: trial.value}
        return {name: value for name, value in found.items() if value is not None}

    def best(self, trials: Iterable[TrialRecord]) -> TrialRecord | None:
        """Return the best trial at the largest resource reached; the first of equals; None without any value.

        With several objectives or constraints it is the first of the front, and with the rule `pick` the trial that it
        picks: of the front, else of the other trials that keep the constraints, else the nearest of the front. With one
        objective it picks among all trials that keep the constraints, the best of equals. With the
        rule `expected` it is the one that a model expects to be the best (`expected`).
        """
        if self.pick is not None and self.pick.is_expected:
            return self._expected(list(trials))
        trials = self._at_largest(trials)
        if self.goals is None and self.pick is None:  # a shorter way to the same, for each of many trials
            sign = -1.0 if self.goal == "maximize" else 1.0
            return min(trials, key=lambda trial: sign * (trial.value or 0.0), default=None)
        front = self.front(trials)
        if self.pick is None or not front:
            return front[0] if front else None
        objective = self.goals.objectives[0] if self.goals else Objective(self.metric, self.goal)
        others = [trial for trial in trials if self.feasible(trial)]
        others.sort(key=lambda trial: objective.loss(trial.value or 0.0))
        # Of a single objective the front is the best trial alone, between which and the others a rule decides.
        several = self.goals is not None and len(self.goals.objectives) > 1
        for group in (front, others, front) if several else (others or front,):
            chosen = group[self.pick.best([self.numbers(trial) for trial in group])] if group else None
            if chosen is not None and self.is_picked(chosen):
                break
        return chosen

    def _expected(self, trials: Sequence[TrialRecord]) -> TrialRecord | None:
        """Return the trial at the largest resource reached whose expected loss is the least."""
        from kondense.search import expected

        largest = self._at_largest(trials)
        if not largest:
            return None
        resource, sign = self.resource(largest[0]), -1.0 if self.goal == "maximize" else 1.0
        lower = [each for each in trials if each.value is not None and self.resource(each) != resource]
        known = [*largest, *lower]
        number = expected.least(
            self.space.without(self.resource_name) if self.resource_name else self.space,
            [{k: v for k, v in trial.assignments.items() if k != self.resource_name} for trial in known],
            [sign * (trial.value or 0.0) for trial in known],
            [self.resource(trial) or 0.0 for trial in known],
            self.name,
        )
        return known[number]

    def front(self, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Return the trials at the largest resource reached that keep the constraints and that no other one dominates.

        The best in the first objective comes first. With one objective it is the best trial alone. If none keeps the
        constraints, it is the one that breaks them least. A trial that lacks the value of an objective does not count.
        """
        goals = self.goals or Goals((Objective(self.metric, self.goal),))
        trials = self._at_largest(trials)
        front = [trials[number] for number in goals.front([self.numbers(trial) for trial in trials])]
        return front if self.goals else front[:1]

    def feasible(self, trial: TrialRecord) -> bool:
        """Return whether a trial keeps the constraints; one without the value of a constraint does not."""
        return self.goals is None or self.goals.feasible(self.numbers(trial))

    def is_picked(self, trial: TrialRecord) -> bool:
        """Return whether a trial meets the rule `pick`; true without one."""
        return self.pick is None or self.pick.met_by(self.numbers(trial))

    def missing(self, metrics: Mapping[str, str]) -> str:
        """Return which metric of the goals is no finite number in a trial's report; empty if all are."""
        texts = {name: metrics.get(name, "") for name in (self.goals.metrics if self.goals else ())}
        return next(
            (f"{name} is no finite number: {text!r}" for name, text in texts.items() if number(text) is None), ""
        )

    def _at_largest(self, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Return the trials with a value at the largest resource that one of them has.

        Trials that were stopped early count only where none ran whole: their values are those of fewer reports.
        """
        valued = [trial for trial in trials if trial.value is not None]
        valued = [trial for trial in valued if trial.status is not Status.EARLY_STOPPED] or valued
        largest = max((self.resource(trial) or 0.0 for trial in valued), default=0.0)
        return [trial for trial in valued if (self.resource(trial) or 0.0) == largest]

    def reaches_target(self, trials: Iterable[TrialRecord]) -> bool:
        """Return whether a trial, with whatever resource, reaches the target, as Katib's controller decides."""
        values = [trial.value for trial in trials if trial.value is not None]
        if self.target is None or not values:
            return False
        return max(values) >= self.target if self.goal == "maximize" else min(values) <= self.target

    def trial_line(self, trial: TrialRecord) -> str:
        """Return a trial's result in one line."""
        words = [trial.name, trial.status.value.replace("_", " ")]
        words += (
            [f"{self.metric}={trial.value:.6g}{self._others(trial)}{self._at(trial)}"]
            if trial.value is not None
            else []
        )
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
        front = self.front(trials) if self.goals else []
        if front and not self.feasible(front[0]):
            parts.append("none keeps the constraints")
        elif len(front) > 1:
            parts.append(f"front of {len(front)}")
        if best := self.best(trials):
            parts.append(f"best {self.metric}={best.value:.6g}{self._others(best)}{self._at(best)}")
        return ", ".join(parts)

    def _others(self, trial: TrialRecord) -> str:
        numbers = self.numbers(trial) if self.goals else {}
        return "".join(f" {name}={value:.6g}" for name, value in numbers.items() if name in self.further)

    def _at(self, trial: TrialRecord) -> str:
        return f" at {self.resource(trial):g} {self.resource_name}" if self.resource_name else ""
