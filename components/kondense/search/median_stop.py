"""Median stopping: a trial whose best value so far is worse than the median of what others had by then is stopped.

Source: Golovin et al., "Google Vizier", 2017, section 3.2.1, with the settings of Katib's medianstop. Deviations from
Vizier: Katib's metrics collector compares once, at report number `start_step`, and so does a local run. Deviation from
Katib's own service, which compares with the mean of the trials' averages, so that one diverged trial turns it off.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kondense.search import settings as reading
from kondense.search.history import Goal

SETTINGS = {
    "min_trials_required": "succeeded trials before any is stopped (default 3)",
    "start_step": "reports of the objective before a trial may be stopped, and whose average counts (default 4)",
}
NAME = "medianstop"


@dataclass(frozen=True)
class MedianStop:
    """The rule's settings; SETTINGS describes them."""

    min_trials_required: int = 3
    start_step: int = 4

    @classmethod
    def read(cls, settings: Mapping[str, str]) -> "MedianStop":
        """Read the settings of `earlyStopping`.

        Raises:
            ValueError: one is unknown or breaks its rule; the message gives the rule and the value.
        """
        reading.check_names(settings, SETTINGS, NAME)
        return cls(
            reading.read_integer(settings, "min_trials_required", cls.min_trials_required, minimum=1),
            reading.read_integer(settings, "start_step", cls.start_step, minimum=1),
        )

    def summary(self, curve: Sequence[float], goal: Goal) -> float | None:
        """Return the average of a whole trial's first `start_step` reports; None without any."""
        first = curve[: self.start_step]
        if not len(first):
            return None
        try:
            return statistics.fmean(first)
        except OverflowError:  # of the sum
            return math.fsum(value / len(first) for value in first)

    def bound(self, summaries: Iterable[Any], goal: Goal) -> float | None:
        """Return the median of the averages of the succeeded trials; None with too few of them."""
        known: list[float] = list(summaries)
        if len(known) < self.min_trials_required:
            return None
        low, high = statistics.median_low(known), statistics.median_high(known)
        return (low + high) / 2 if math.isfinite(low + high) else low / 2 + high / 2

    def stops(self, curve: Sequence[float], bound: float, goal: Goal) -> bool:
        """Return whether the best of a running trial's first `start_step` reports is worse than the bound."""
        return falls_short(curve, self.start_step, bound, goal)

    def reason(self, bound: float) -> str:
        """Return why a trial is stopped."""
        return f"worse than the median {bound:g}"


def falls_short(curve: Sequence[float], count: int, bound: float, goal: Goal) -> bool:
    """Return whether the best of the first ``count`` reports is worse than the bound; False while there are fewer.

    Later reports do not count, so that it does not matter how many there are when somebody looks.
    """
    if len(curve) < count:
        return False
    first = curve[:count]
    return min(first) > bound if goal == "minimize" else max(first) < bound
