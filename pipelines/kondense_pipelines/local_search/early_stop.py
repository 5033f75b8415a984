"""Early stopping of local trials by the median of those that have succeeded."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kondense.search.history import Goal, Status
from kondense.search.median_stop import MedianStop
from kondense.search.run import TrialRecord

from kondense_pipelines.local_search.reports import Reports
from kondense_pipelines.local_search.trial_process import GRACE_S, TrialProcess


@dataclass
class EarlyStop:
    """The bounds of the running trials, which are set when they start, as on a cluster.

    Args:
        reports: of the trials.
        rule: None stops no trial.
        goal: direction of the objective.
    """

    reports: Reports
    rule: MedianStop | None
    goal: Goal
    bounds: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)  # the times at which trials were stopped

    def begin(self, name: str, finished: Iterable[TrialRecord]) -> None:
        """Set the bound of a trial that starts."""
        curves = (trial.curve for trial in finished if trial.status is Status.SUCCEEDED)
        bound = self.rule.bound(curves) if self.rule is not None else None
        if bound is not None:
            self.bounds[name] = bound

    def check(self, name: str, process: TrialProcess) -> None:
        """Stop a trial that is worse than its bound, and kill it after GRACE_S."""
        if name in self.stopped:
            if time.monotonic() - self.stopped[name] > GRACE_S:
                process.kill()
            return
        size = self.reports.size(process.directory, process.log)
        if self.rule is None or name not in self.bounds or size == process.seen_bytes:
            return
        process.seen_bytes = size
        curve = self.reports.curve(self.reports.read(process.directory, process.log))
        if self.rule.stops(curve, self.bounds[name], self.goal):
            self.stopped[name] = time.monotonic()
            process.stop()

    @property
    def first(self) -> int:
        """The number of first reports of a trial that decide about others."""
        return self.rule.start_step if self.rule is not None else 0

    def reason(self, name: str, curve: Sequence[float]) -> str:
        """Return why a trial was stopped."""
        return f"worse than the median {self.bounds[name]:g} after {len(curve)} reports"
