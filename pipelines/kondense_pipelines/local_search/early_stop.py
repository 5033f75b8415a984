"""Early stopping of local trials by a rule that learns from those that have succeeded."""

import contextlib
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from kondense.files import ArtifactError
from kondense.search.history import Goal, Status
from kondense.search.ledger import identity
from kondense.search.run import Search, TrialRecord
from kondense.search.stopping import Rule

from kondense_pipelines.local_search.reports import Reports
from kondense_pipelines.local_search.trial_process import GRACE_S, TrialProcess


@dataclass
class EarlyStop:
    """The bounds of the running trials, which are set when they start, as on a cluster.

    Args:
        reports: of the trials.
        rule: None stops no trial.
        goal: direction of the objective.
        group: of a trial, whose reports compare with those of the others in it; None for one that is never stopped.
    """

    reports: Reports
    rule: Rule | None
    goal: Goal
    group: Callable[[TrialRecord], Hashable | None] = lambda trial: 0
    bounds: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)  # the times at which trials were stopped

    def begin(self, trial: TrialRecord, finished: Iterable[TrialRecord]) -> None:
        """Set the bound of a trial that starts."""
        group = self.group(trial)
        if self.rule is None or group is None:
            return
        curves = (each.curve for each in finished if each.status is Status.SUCCEEDED and self.group(each) == group)
        summaries = [summary for curve in curves if (summary := self.rule.summary(curve, self.goal)) is not None]
        bound = self.rule.bound(summaries, self.goal)
        if bound is not None:
            self.bounds[trial.name] = bound

    def check(self, name: str, process: TrialProcess) -> None:
        """Stop a trial that is worse than its bound, and kill it after GRACE_S."""
        if name in self.stopped:
            if time.monotonic() - self.stopped[name] > GRACE_S:
                process.kill()
            return
        if self.rule is None or name not in self.bounds:
            return
        with contextlib.suppress(ArtifactError, OSError):  # once it has ended, it is told
            self.reports.follow(process.directory, process.log, process.seen, self.first)
        if self.rule.stops(process.seen.curve, self.bounds[name], self.goal):
            self.stopped[name] = time.monotonic()
            process.stop()

    @property
    def first(self) -> int:
        """The number of first reports of a trial that decide about others."""
        return self.rule.start_step if self.rule is not None else 0

    def reason(self, name: str, curve: Sequence[float]) -> str:
        """Return why a trial was stopped."""
        assert self.rule is not None, "only a rule stops a trial"
        return f"{self.rule.reason(self.bounds[name])} after {len(curve)} reports"


def groups(search: Search) -> Callable[[TrialRecord], Hashable | None]:
    """Return the group of a trial: all are one without brackets; with them, those promoted to the largest resource.

    Their curves begin at the same resource, and nothing is promoted from there, so that it costs nothing to stop one
    that will not be the best. Lower rungs must keep their order; trials that get the largest resource at once are few.
    """

    def group(trial: TrialRecord) -> Hashable | None:
        if search.max_resource is None:
            return 0
        named = identity(trial.name)
        promoted = named is not None and named.rung > 0
        return 0 if promoted and search.resource(trial) == search.max_resource else None

    return group
