"""The state of an experiment, reconstructed from the ledger and the reported trials."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import isfinite
from operator import is_
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kondense.search.goals import Goal, Goals
from kondense.search.history import AbandonedError, History, Proposal, Status, Suggestion, Trial
from kondense.search.ledger import SETTING, Identity, Ledger
from kondense.search.memory import Memory

PENDING = math.nan  # the loss of a trial that may still report one
FAILED = math.inf  # the loss of a trial that ended without one

Number = TypeVar("Number", int, float)

UNFINISHED = (Status.CREATED, Status.RUNNING)
# Globals: the look-up of an enumeration's member dominates the time per trial.
SUCCEEDED, EARLY_STOPPED = Status.SUCCEEDED, Status.EARLY_STOPPED
VALUED = (Status.SUCCEEDED, Status.EARLY_STOPPED)


@dataclass
class Rung:
    """One rung: its configurations in order of issue, and their losses (PENDING, FAILED or finite).

    The loss of a trial that was stopped early is above those of all that ran whole with the same resource: its value is
    one of fewer reports. Such trials are in the order of their values.

    With several goals the losses are places among all trials of the rung's resource, and `rows` has the losses and
    excesses of each goal (`Goals.row`), NaN where there is none, [trials, goals].
    """

    configs: Sequence[int] = ()
    losses: Sequence[float] = ()
    rows: NDArray[np.float64] | None = None

    def append(self, config: int, row: Sequence[float] | None) -> None:
        """Add a trial that has no loss yet; what other states share stays as it is."""
        self.configs, self.losses = _grown(self.configs, config), _grown(self.losses, PENDING)
        if row is not None:
            added = np.array([row])
            self.rows = added if self.rows is None else np.concatenate([self.rows, added])


@dataclass(frozen=True, slots=True)
class _Part:
    """What the trials of a bracket say, those of all rungs in order.

    Args:
        stamp: the bracket's part of the ledger (None if it still changes), the direction, the metrics of `columns`.
        names: of the trials.
        trials: as reported.
        assignments: of each configuration; None if none of its trials is reported.
        configs: of each rung.
        losses: of each rung, of the Experiment's own objective.
        stopped: whether a trial was stopped early.
        columns: values of the further metrics, NaN where there is none, [metrics, trials].
    """

    stamp: tuple[str | None, Goal, tuple[str, ...]]
    names: tuple[str, ...]
    trials: tuple[Trial | None, ...]
    assignments: tuple[Mapping[str, str] | None, ...]
    configs: tuple[Sequence[int], ...]
    losses: tuple[Sequence[float], ...]
    stopped: bool
    columns: NDArray[np.float64]


PARTS = Memory[_Part](16_384)  # trials


@dataclass(frozen=True, slots=True)
class _Places:
    """The places of trials of one resource, and what they follow from: the goals and the trials' rows, as bytes."""

    goals: Goals
    rows: bytes
    places: NDArray[np.float64]


PLACES = Memory[_Places](16_384)  # trials


class ExperimentState:
    """All brackets with their rungs, and the known values of each configuration.

    Attributes:
        ledger: the trials issued so far.
        experiment: the experiment's name.
        rungs: the rungs of each bracket.
        assignments: for each bracket the assignments of each configuration; None if none of its trials is reported.
    """

    def __init__(self, history: History, rungs_per_bracket: Sequence[int] = (1,)) -> None:
        """Match the reported trials with the ledger, ignoring trials that it does not list.

        A trial of the ledger that is not reported has ended without a metric: the controller omits such trials.

        Args:
            history: the request.
            rungs_per_bracket: of each bracket in one cycle; its rungs end at the full resource.

        Raises:
            ValueError: the ledger cannot be read.
        """
        self.ledger = Ledger(history.issued)
        self.experiment = history.experiment
        self.goals = history.goals
        self._wanted = history.wanted
        reported = {trial.name: trial for trial in history.trials}
        parts = [self._part(bracket, reported, history.goal) for bracket in range(len(self.ledger.digests))]
        self.rungs = [list(map(Rung, part.configs, part.losses)) for part in parts]
        self.assignments = [list(part.assignments) for part in parts]
        if self.goals is not None:
            self._read_goals([part.columns for part in parts], self.goals, rungs_per_bracket)
        if any(part.stopped for part in parts):
            flat = [trial for part in parts for trial in part.trials]
            self._put_behind([trial is not None and trial.status is EARLY_STOPPED for trial in flat], rungs_per_bracket)

    def _part(self, bracket: int, reported: Mapping[str, Trial], goal: Goal) -> "_Part":
        """Return what a bracket's trials say; if its part of the ledger and they are those of an earlier call, at once.

        A trial that changed is another object, also where the controller reports all of them anew
        (`kondense.suggestion.conversion`).
        """
        text, others = self.ledger.closed(bracket), self.goals.metrics[1:] if self.goals is not None else ()
        stamp = (text, goal, others)
        known = PARTS.get((self.experiment, bracket)) if text is not None else None
        if known is not None and known.stamp == stamp and all(map(is_, map(reported.get, known.names), known.trials)):
            return known
        rungs = self.ledger.names(self.experiment, bracket)
        names = tuple(name for rung in rungs for name in rung)
        trials = tuple(map(reported.get, names))
        values: list[Mapping[str, str] | None] = [None if t is None else t.assignments for t in trials[: len(rungs[0])]]
        if not all(trials[: len(rungs[0])]):
            higher = (config for rung in self.ledger.issued(bracket)[1:] for config in rung)
            for config, trial in zip(higher, trials[len(rungs[0]) :], strict=True):
                if trial is not None and values[config] is None:
                    values[config] = trial.assignments
        configs = tuple(self.ledger.issued(bracket))
        part = _Part(
            stamp,
            names,
            trials,
            tuple(values),
            configs,
            _split(_losses(trials, -1.0 if goal == "maximize" else 1.0), configs),
            any(trial is not None and trial.status is EARLY_STOPPED for trial in trials),
            np.array(
                [[math.nan if t is None else t.metrics.get(m, math.nan) for t in trials] for m in others], np.float64
            ).reshape(len(others), len(trials)),
        )
        if text is not None:
            PARTS.put((self.experiment, bracket), part, len(trials))
        return part

    @property
    def issued(self) -> int:
        """The number of trials issued so far."""
        return sum(len(rung.configs) for rungs in self.rungs for rung in rungs)

    def rung(self, bracket: int, level: int) -> Rung:
        """Return a rung of a bracket; an empty one if it has no trials yet."""
        rungs = self.rungs[bracket]
        return rungs[level] if level < len(rungs) else Rung()

    def start_bracket(self) -> None:
        """Open the next bracket."""
        self.ledger.start_bracket()
        self.rungs.append([Rung()])
        self.assignments.append([])

    def add(self, bracket: int, assignments: Mapping[str, str], resource_name: str | None = None) -> Identity:
        """Issue a new configuration in a bracket's lowest rung."""
        issued = self.ledger.add(bracket, assignments, resource_name)
        self.assignments[bracket].append(assignments)
        self._append(issued)
        return issued

    def promote(self, bracket: int, level: int, config: int) -> Identity:
        """Issue a configuration again in a higher rung."""
        issued = self.ledger.promote(bracket, level, config)
        self._append(issued)
        return issued

    def issue(self, count: int, draw: Callable[[int], Mapping[str, str]]) -> Suggestion:
        """Issue `count` new configurations of a search without brackets.

        Args:
            count: number of trials.
            draw: returns the assignments of configuration number i, counted from 0 over the whole search;
                `ledger.known` holds the digests of those issued before.
        """
        if not self.rungs:
            self.start_bracket()
        proposals = []
        for _ in range(count):
            assignments = draw(len(self.ledger.digests[0]))
            proposals.append(self.proposal(self.add(0, assignments), assignments))
        return self.reply(proposals)

    def proposal(self, issued: Identity, assignments: Mapping[str, str]) -> Proposal:
        """Return an issued trial as a proposal.

        Raises:
            AbandonedError: nobody waits for it any more.
        """
        if not self._wanted():
            raise AbandonedError("the caller of the suggestion has gone.")
        return Proposal(issued.name(self.experiment), assignments, issued.labels())

    def reply(self, proposals: Sequence[Proposal]) -> Suggestion:
        """Return the proposals together with the ledger."""
        return Suggestion(tuple(proposals), {SETTING: self.ledger.text()})

    def _every(self) -> list[Rung]:
        """Return all rungs, in the order of their brackets."""
        return [rung for rungs in self.rungs for rung in rungs]

    def _read_goals(
        self,
        known: Sequence[NDArray[np.float64]],
        goals: Goals,
        rungs_per_bracket: Sequence[int],
    ) -> None:
        """Give each rung the losses and excesses of its trials, and these their places among all of their resource.

        Args:
            known: values of the further metrics of each bracket's trials, [metrics, trials].
            goals: the objectives and constraints.
            rungs_per_bracket: of each bracket in one cycle.
        """
        losses = np.array([loss for rung in self._every() for loss in rung.losses])
        valued = np.isfinite(losses)
        own, *others = goals.metrics
        columns = {own: losses * goals.objectives[0].loss(1.0)}
        further = np.concatenate([np.empty((len(others), 0)), *known], axis=1)
        columns |= dict(zip(others, further, strict=True))
        rows = goals.rows(columns)
        rows[~valued] = math.nan
        every, place = self._every(), 0
        for rung in every:
            rung.rows = rows[place : place + len(rung.losses)]
            place += len(rung.losses)
        levels = np.repeat(self._level_of_rungs(rungs_per_bracket), [len(rung.losses) for rung in every])
        for level in np.unique(levels):
            index = np.flatnonzero(valued & (levels == level))
            losses[index] = self._places(int(level), goals, rows[index])
        _replace(every, losses.tolist())

    def _places(self, level: int, goals: Goals, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the places of the trials of one resource, [N]: known ones while their rows stay as they were."""
        content = rows.tobytes()
        known = PLACES.get((self.experiment, level))
        if known is not None and known.rows == content and known.goals == goals:
            return known.places
        places = goals.losses(rows)
        PLACES.put((self.experiment, level), _Places(goals, content, places), len(rows))
        return places

    def _put_behind(self, stopped: Sequence[bool], rungs_per_bracket: Sequence[int]) -> None:
        """Raise the losses of trials that were stopped early above those of others with the same resource.

        With the largest resource of brackets nothing is promoted, and a trial is stopped because it will not be the
        best: its own value, of fewer reports, says about how good it is and counts, but as no better than the best.

        Source: the order of Optuna's TPESampler, complete trials before pruned ones. Katib's collector stops all at the
        same report, so that their values compare.

        Args:
            stopped: of each trial in the order of the rungs.
            rungs_per_bracket: of each bracket in one cycle.
        """
        every = self._every()
        losses, depth = np.array([loss for rung in every for loss in rung.losses]), max(rungs_per_bracket)
        levels = np.repeat(self._level_of_rungs(rungs_per_bracket), [len(rung.losses) for rung in every])
        finite, marked = np.isfinite(losses), np.array(stopped, dtype=bool)
        for level in np.unique(levels[marked & finite]):
            here = finite & (levels == level)
            early, whole = here & marked, losses[here & ~marked]
            largest = depth > 1 and level == depth - 1
            losses[early] = _no_better(losses[early], whole) if largest else _worse(losses[early], whole)
        _replace(every, losses.tolist())

    def _level_of_rungs(self, rungs_per_bracket: Sequence[int]) -> list[int]:
        """Return the place of each rung's resource among all resources, from the smallest on."""
        depth = max(rungs_per_bracket)
        return [
            depth - rungs_per_bracket[bracket % len(rungs_per_bracket)] + level
            for bracket, rungs in enumerate(self.rungs)
            for level in range(len(rungs))
        ]

    def _append(self, issued: Identity) -> None:
        rungs = self.rungs[issued.bracket]
        while len(rungs) <= issued.rung:
            rungs.append(Rung())
        rungs[issued.rung].append(issued.config, self.goals.row({}) if self.goals is not None else None)


def _no_better(early: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return losses, none of which is below the least of `whole`."""
    return np.maximum(early, whole.min()) if whole.size else early


def _worse(early: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return losses in the order of `early`, all of them above those of `whole`."""
    worst = float(whole.max()) if whole.size else 0.0
    places = np.unique(early, return_inverse=True)[1] + 1
    with np.errstate(over="ignore"):
        behind = worst + max(abs(worst), 1.0) * places / places.max()
    found: NDArray[np.float64] = np.minimum(behind, np.finfo(np.float64).max)  # FAILED is infinite
    return found


def _replace(rungs: Sequence[Rung], losses: list[float]) -> None:
    """Give the rungs their parts of `losses`."""
    for rung, part in zip(rungs, _split(losses, [rung.configs for rung in rungs]), strict=True):
        rung.losses = part


def _split(losses: list[float], rungs: Sequence[Sequence[int]]) -> tuple[Sequence[float], ...]:
    """Return the parts of `losses` that belong to rungs of these configurations."""
    ends = list(accumulate(map(len, rungs), initial=0))
    return tuple(tuple(losses[start:end]) for start, end in pairwise(ends))


def _grown(values: Sequence[Number], value: Number) -> list[Number]:
    """Return the values and one more: the same list if it is one, since states share tuples and ranges only."""
    if not isinstance(values, list):
        values = list(values)
    values.append(value)
    return values


def _losses(trials: Sequence[Trial | None], sign: float) -> list[float]:
    return [
        sign * trial.value
        if trial is not None and trial.status is SUCCEEDED and trial.value is not None and isfinite(trial.value)
        else _loss(trial, sign)
        for trial in trials
    ]


def _loss(trial: Trial | None, sign: float) -> float:
    if trial is None:
        return FAILED
    if trial.status in VALUED:
        value = trial.value
        return sign * value if value is not None and isfinite(value) else FAILED
    return PENDING if trial.status in UNFINISHED else FAILED
