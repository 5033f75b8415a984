"""Learning-curve stopping: a trial that will hardly become the best is stopped, by what whole trials' curves foretell.

The best of a trial's first `start_step` reports foretells its best report at the end: a line is fitted to these pairs
of the whole trials, and a new trial's end has Student's t distribution around it, which is wide with few trials, with
noise, and away from what was seen. A trial is stopped if its chance to end better than the best one is below
`probability`. If the pairs show no certain relation, no trial is stopped.

Source: Baker, Gupta, Raskar and Naik 2017, "Accelerating neural architecture search using performance prediction",
section 4. Deviations: the predictor is linear in the best value so far, and its uncertainty is that of the regression
instead of a normal distribution with the error of a validation set; one look per trial, because Katib's metrics
collector compares once, at report number `start_step`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kondense.search import settings as reading
from kondense.search.history import Goal
from kondense.search.median_stop import falls_short

SETTINGS = {
    "min_trials_required": "succeeded trials before any is stopped (default 5, at least 4)",
    "start_step": "reports of the objective before a trial may be stopped (default 4)",
    "probability": "chance of becoming the best below which a trial is stopped (default 0.05)",
}
NAME = "curvestop"
LEAST_TRIALS = 4  # a line has two numbers, and its error needs more than one left over
PROBABILITIES = (1e-6, 0.5)

Pair = tuple[float, float]  # the best of the first reports, and of all


@dataclass(frozen=True)
class CurveStop:
    """The rule's settings; SETTINGS describes them."""

    min_trials_required: int = 5
    start_step: int = 4
    probability: float = 0.05

    @classmethod
    def read(cls, settings: Mapping[str, str]) -> "CurveStop":
        """Read the settings of `earlyStopping`.

        Raises:
            ValueError: one is unknown or breaks its rule; the message gives the rule and the value.
        """
        reading.check_names(settings, SETTINGS, NAME)
        return cls(
            reading.read_integer(settings, "min_trials_required", cls.min_trials_required, minimum=LEAST_TRIALS),
            reading.read_integer(settings, "start_step", cls.start_step, minimum=1),
            reading.read_number(settings, "probability", cls.probability, *PROBABILITIES),
        )

    def summary(self, curve: Sequence[float], goal: Goal) -> Pair | None:
        """Return what a whole trial tells; None if it made no more than `start_step` reports."""
        if len(curve) <= self.start_step:
            return None
        best = min if goal == "minimize" else max
        return best(curve[: self.start_step]), best(curve)

    def bound(self, summaries: Iterable[Any], goal: Goal) -> float | None:
        """Return the value that a trial's first reports must reach; None with too few whole trials, or no relation."""
        pairs = np.array(list(summaries), dtype=float).reshape(-1, 2)
        if len(pairs) < self.min_trials_required:
            return None
        sign = -1.0 if goal == "minimize" else 1.0
        early, end = sign * pairs.T
        try:
            with np.errstate(all="ignore"):
                found = _least_promising(early, end, self.probability)
        except OverflowError:  # values whose squares are no doubles
            return None
        return None if found is None or not math.isfinite(found) else sign * found

    def stops(self, curve: Sequence[float], bound: float, goal: Goal) -> bool:
        """Return whether the best of a running trial's first `start_step` reports is worse than the bound."""
        return falls_short(curve, self.start_step, bound, goal)

    def reason(self, bound: float) -> str:
        """Return why a trial is stopped."""
        return f"worse than {bound:g}, so that the chance to become the best is below {self.probability:g},"


def _least_promising(early: np.ndarray, end: np.ndarray, probability: float) -> float | None:
    """Return the early value with which a trial's end is above the best one with a chance of `probability`.

    Larger is better. With u = early - mean, the end is mean(end) + slope u + s sqrt(1 + 1/n + u^2 / sum u^2) t(n - 2).
    The early value is the smaller root of a quadratic equation, which has one if the slope is certainly positive.
    """
    count, centred = len(early), early - early.mean()
    spread = float(centred @ centred)
    if spread <= np.finfo(float).eps * float(early @ early):
        return None
    slope = float(centred @ end) / spread
    missed = end - end.mean() - slope * centred
    width = student_quantile(1.0 - probability, count - 2) * math.sqrt(float(missed @ missed) / (count - 2))
    leading = slope**2 - width**2 / spread
    if slope <= 0.0 or leading <= 0.0:
        return None
    ahead = float(end.max() - end.mean())
    inner = (ahead * slope) ** 2 - leading * (ahead**2 - width**2 * (1.0 + 1.0 / count))
    return float(early.mean()) + (ahead * slope - math.sqrt(max(inner, 0.0))) / leading


def student_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution with a whole number of degrees of freedom, by bisection.

    SciPy has it, too, but importing it takes 100 MB, a good part of what the service's container has.
    """
    low, high = 0.0, 1.0
    while student_cdf(high, degrees) < probability:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if student_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2.0


def student_cdf(value: float, degrees: int) -> float:
    """Return the share of Student's t distribution below a value of at least 0.

    Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.
    """
    angle = math.atan(value / math.sqrt(degrees))
    cosine = math.cos(angle)
    term, total = (cosine, 0.0) if degrees % 2 else (1.0, 0.0)
    for number in range(degrees % 2, degrees - 1, 2):
        total += term
        term *= cosine**2 * (number + 1) / (number + 2)
    inside = math.sin(angle) * total
    return 0.5 + (2.0 * (angle + inside) / math.pi if degrees % 2 else inside) / 2.0
