"""A rule that picks one trial of a front, such as `validation_accuracy >= 0.9, min latency_ms`; or `expected`."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from kondense.errors import InputError
from kondense.search.goals import CONSTRAINT, Constraint, Objective, read_constraint

EXPECTED = "expected"  # the trial that a model expects to be the best in the objective (`expected.least`)
PREFERENCE = re.compile(r"(min|max)(?:imize)?\s+([^\s,<>=]+)")


@dataclass(frozen=True)
class Pick:
    """Bounds to keep, and metrics to minimize or maximize, the first of them first.

    Attributes:
        text: as given.
        bounds: of metrics.
        preferences: of the trials that keep the bounds.
    """

    text: str
    bounds: tuple[Constraint, ...]
    preferences: tuple[Objective, ...]

    @property
    def is_expected(self) -> bool:
        """Whether a model picks, not a rule on metrics."""
        return self.text == EXPECTED

    def met_by(self, values: Mapping[str, float]) -> bool:
        """Return whether a trial's metrics keep the bounds; one without a metric does not keep its bound."""
        return self.distance(values) == 0

    def distance(self, values: Mapping[str, float]) -> float:
        """Return how far a trial is from keeping the bounds: the sum of the excesses, relative to the bounds."""
        excesses = ((each.excess(values.get(each.metric, math.nan)), abs(each.bound) or 1.0) for each in self.bounds)
        return sum(math.inf if math.isnan(excess) else max(excess, 0) / scale for excess, scale in excesses)

    def best(self, trials: Sequence[Mapping[str, float]]) -> int:
        """Return the number of the trial that the rule picks; if none keeps the bounds, the nearest. At least one."""

        def key(number: int) -> tuple[float, ...]:
            values = trials[number]
            losses = (
                each.loss(values[each.metric]) if each.metric in values else math.inf for each in self.preferences
            )
            return (self.distance(values), *losses, number)

        return min(range(len(trials)), key=key)


def read_pick(text: str, reported: Collection[str]) -> Pick | None:
    """Return the rule in a text; None for an empty one.

    Args:
        text: `METRIC <= NUMBER`, `METRIC >= NUMBER`, `min METRIC` and `max METRIC`, joined by commas; or `expected`.
        reported: the metrics that trials report.

    Raises:
        ValueError: a part has another form, names a metric that no trial reports, or one to minimize or maximize again.
    """
    if not text.strip():
        return None
    if text.strip() == EXPECTED:
        return Pick(EXPECTED, (), ())
    bounds, preferences = [], []
    for part in (part.strip() for part in text.split(",")):
        if match := PREFERENCE.fullmatch(part):
            preferences.append(Objective(match[2], "minimize" if match[1] == "min" else "maximize"))
        elif CONSTRAINT.fullmatch(part):
            bounds.append(read_constraint(part, "pick"))
        else:
            raise InputError(
                "pick must be METRIC <= NUMBER, METRIC >= NUMBER, min METRIC or max METRIC, joined by commas, "
                f"or expected, but got {part!r}."
            )
    preferred = [each.metric for each in preferences]
    for number, metric in enumerate(preferred):
        if metric in preferred[:number]:
            raise InputError(f"pick must minimize or maximize each metric once, but {metric!r} is named already.")
    for metric in [*(each.metric for each in bounds), *(each.metric for each in preferences)]:
        if metric not in reported:
            raise InputError(f"pick must name metrics that trials report ({', '.join(reported)}), but got {metric!r}.")
    return Pick(text.strip(), tuple(bounds), tuple(preferences))
