"""Grid search: every configuration of a finite space once."""

import math
from collections.abc import Mapping

from kondense.errors import InputError
from kondense.search import settings as reading
from kondense.search.history import History
from kondense.search.ledger import SETTING
from kondense.search.proposal import Proposal, Suggestion
from kondense.search.space import SearchSpace
from kondense.search.state import Board


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
        raise InputError(f"grid needs maxTrialCount of at most the grid's {size} configurations, but it is not set.")
    if max_trial_count > size:
        raise InputError(f"maxTrialCount must be at most the grid's {size} configurations, but got {max_trial_count}.")


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
    Once all are issued, those whose trials are not reported any more (deleted, or ended without a metric) are issued
    again under new names: Katib asks for a trial in the place of each.

    Raises:
        ValueError: fewer are left than asked for.
    """
    size = planned_trials(settings, space)
    board = Board(history)
    if not board.rungs:
        board.start_bracket()
    issued = len(board.ledger.digests[0])
    indices = [*range(issued, size), *(_lost(board, size) if issued + count > size else ())][:count]
    if len(indices) < count:
        raise InputError(
            f"the grid has {size} configurations, but {issued} are issued and {count} more were asked for, "
            f"and only {len(indices)} are open or lost."
        )
    start, stride = _walk(size, settings.get("random_state"))
    proposals = []
    for index in indices:
        assignments = space.point((start + index * stride) % size)
        entry = board.add(0, assignments)
        proposals.append(Proposal(entry.name(history.experiment), assignments, entry.labels()))
    return Suggestion(tuple(proposals), {SETTING: board.ledger.text()})


def _lost(board: Board, size: int) -> list[int]:
    """Return the issued points of the grid of which no trial is reported, in order."""
    digests = board.ledger.digests[0]
    reported = {digest for digest, known in zip(digests, board.assignments[0], strict=True) if known is not None}
    return [index for index, digest in enumerate(digests[:size]) if digest not in reported]


def _walk(size: int, random_state: str | None) -> tuple[int, int]:
    """Return the first point and a stride without common divisor with `size`, near its golden section."""
    if random_state is None:
        return 0, 1
    stride = max(int(size * 0.6180339887), 1)
    while math.gcd(stride, size) != 1:
        stride += 1
    return int(float(random_state)) * stride % size, stride
