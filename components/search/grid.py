"""Grid search: every configuration of a finite space once."""

import math
from collections.abc import Mapping

from components.search import settings as reading
from components.search.board import Board
from components.search.history import History
from components.search.ledger import SETTING
from components.search.proposal import Proposal, Suggestion
from components.search.space import SearchSpace


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts.

    Raises:
        ValueError: a rule is broken; the message gives the rule and the value.
    """
    reading.check_names(settings, ())
    reading.check_counts(max_trial_count, parallel_trial_count)
    size = planned_trials(settings, space)
    if max_trial_count is None:
        raise ValueError(f"grid needs maxTrialCount of at most the grid's {size} configurations, but it is not set.")
    if max_trial_count > size:
        raise ValueError(f"maxTrialCount must be at most the grid's {size} configurations, but got {max_trial_count}.")


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

    With the setting `random_state` the order is a walk with a fixed stride, which visits every point once as well.

    Raises:
        ValueError: fewer are left than asked for.
    """
    size = planned_trials(settings, space)
    board = Board(history)
    if not board.rungs:
        board.start_bracket()
    done = len(board.ledger.digests[0])
    if done + count > size:
        raise ValueError(f"the grid has {size} configurations, but {done} are issued and {count} more were asked for.")
    start, stride = _walk(size, settings.get("random_state"))
    proposals = []
    for index in range(done, done + count):
        assignments = space.point((start + index * stride) % size)
        issued = board.add(0, assignments)
        proposals.append(Proposal(issued.name(history.experiment), assignments, issued.labels()))
    return Suggestion(tuple(proposals), {SETTING: board.ledger.text()})


def _walk(size: int, random_state: str | None) -> tuple[int, int]:
    """Return the first point and a stride without common divisor with `size`, near its golden section."""
    if random_state is None:
        return 0, 1
    stride = max(int(size * 0.6180339887), 1)
    while math.gcd(stride, size) != 1:
        stride += 1
    return int(float(random_state)) * stride % size, stride
