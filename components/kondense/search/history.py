"""State of an experiment at the time of a suggestion request, and the suggester's reply."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kondense.errors import InputError, KondenseError
from kondense.search.goals import Goal, Goals

__all__ = ["AbandonedError", "Goal", "History", "Proposal", "Status", "Suggestion", "Trial"]


class AbandonedError(KondenseError):
    """Nobody waits for the suggestion any more."""


class Status(StrEnum):
    """The last condition of a trial."""

    CREATED = "created"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"
    EARLY_STOPPED = "early_stopped"
    METRICS_UNAVAILABLE = "metrics_unavailable"


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial as the controller reports it.

    Args:
        name: as issued by a suggester.
        assignments: values of the parameters, as Katib's strings.
        status: its last condition.
        value: the objective, in the experiment's own direction; None or NaN if there is none.
        metrics: the finite numbers among its other metrics, by name; needed with `History.goals` only.
    """

    name: str
    assignments: Mapping[str, str]
    status: Status
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """Everything a suggester works from; it keeps no state of its own.

    Args:
        trials: all reported trials, in any order; those whose name was not issued are ignored.
        issued: the ledger of issued trials: setting `issued` of the last Suggestion, empty at the start.
        goal: direction of the objective.
        experiment: its name, the start of every trial's name, at most 40 characters.
        max_trials: number of trials in total; None if unknown.
        goals: several objectives or constraints, the experiment's own first; None with one objective.
        wanted: whether the caller still waits; asked before each proposal, which raises AbandonedError where it is not.

    Raises:
        ValueError: the goal or the name breaks a rule.
    """

    trials: tuple[Trial, ...] = ()
    issued: str = ""
    goal: Goal = "minimize"
    experiment: str = "experiment"
    max_trials: int | None = None
    goals: Goals | None = None
    wanted: Callable[[], bool] = field(default=lambda: True, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.goal not in ("minimize", "maximize"):
            raise InputError(f"goal must be minimize or maximize, but got {self.goal!r}.")
        if not 1 <= len(self.experiment) <= 40:
            raise InputError(f"an experiment's name must have 1 to 40 characters, but got {self.experiment!r}.")


@dataclass(frozen=True)
class Proposal:
    """One trial to run.

    Args:
        name: the trial's name, which encodes bracket, rung and configuration.
        assignments: values of all parameters, as Katib's strings.
        labels: for people (`kubectl get trials -L bracket,rung`); never read back.
    """

    name: str
    assignments: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suggestion:
    """The reply to one request.

    Args:
        proposals: exactly as many as requested.
        settings: algorithm settings to store and to send with the next request (the ledger).
    """

    proposals: tuple[Proposal, ...]
    settings: Mapping[str, str]
