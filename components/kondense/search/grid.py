"""Grid search: every configuration of a finite space once."""

import math
from collections.abc import Mapping

from kondense.errors import InputError
from kondense.search import goals
from kondense.search import settings as reading
from kondense.search.history import History, Suggestion
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

METHOD = {
    "name": "grid",
    "kind": "single-fidelity",
    "summary": "every configuration of a finite space once; random_state shuffles the order",
}
SETTINGS = goals.SETTINGS


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts; a ValueError gives the broken rule and the value."""
    reading.check(settings, SETTINGS, max_trial_count, parallel_trial_count)
    size = planned_trials(settings, space)
    if max_trial_count is None:
        raise InputError(f"grid needs a number of trials (maxTrialCount) of at most {size}, but it is not set.")
    if max_trial_count > size:
        raise InputError(
            f"the number of trials must be at most the grid's {size} configurations, but got {max_trial_count}."
        )


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int:
    """Return the number of configurations in the grid.

    Raises:
        ValueError: a parameter is continuous.
    """
    for parameter in space.parameters:
        if parameter.levels is None:
            raise parameter.error("grid needs a step for a double parameter, but got none")
    assert space.size is not None
    return space.size


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return the next `count` configurations of the grid, the last parameter changing fastest.

    With the setting `random_state` the order is a walk with a fixed stride, which also visits every point once.
    Once all are issued, those whose trials are no longer reported (deleted, or ended without a metric) are issued
    again under new names: Katib requests a replacement for each of them.

    Raises:
        ValueError: fewer remain than requested.
    """
    size = planned_trials(settings, space)
    state = ExperimentState(history)
    if not state.rungs:
        state.start_bracket()
    issued = len(state.ledger.digests[0])
    fresh = range(issued, min(size, issued + count))
    indices = [*fresh, *(_lost(state, size) if len(fresh) < count else ())][:count]
    if len(indices) < count:
        raise InputError(
            f"the grid has {size} configurations, but {issued} are issued and {count} more were requested, "
            f"and only {len(indices)} are open or lost."
        )
    start, stride = _walk(size, settings.get("random_state"))
    points = iter([space.point((start + index * stride) % size) for index in indices])
    return state.issue(count, lambda number: next(points))


def _lost(state: ExperimentState, size: int) -> list[int]:
    """Return the issued points of the grid of which no trial is reported, in order."""
    digests = state.ledger.digests[0]
    reported = {digest for digest, known in zip(digests, state.assignments[0], strict=True) if known is not None}
    return [index for index, digest in enumerate(digests[:size]) if digest not in reported]


def _walk(size: int, random_state: str | None) -> tuple[int, int]:
    """Return the first point and a stride without common divisor with `size`, near its golden section."""
    if random_state is None:
        return 0, 1
    stride = max(size * 6180339887 // 10**10, 1)  # exact: a grid may have more points than a double counts
    while math.gcd(stride, size) != 1:
        stride += 1
    return int(float(random_state)) * stride % size, stride
