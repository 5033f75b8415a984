"""Random search: every configuration is drawn from the space's distributions."""

from collections.abc import Mapping

from kondense.search import settings as reading
from kondense.search.history import History
from kondense.search.ledger import SETTING
from kondense.search.proposal import Proposal, Suggestion
from kondense.search.sampling import draw_random, generator, seed_of
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


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int | None:
    """Return the number of trials after which the method has nothing new; None for a continuous space."""
    return space.size


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` configurations that differ from all issued ones while the space has any."""
    board = Board(history)
    if not board.rungs:
        board.start_bracket()
    proposals = []
    for _ in range(count):
        rng = generator(seed_of(settings, seed), history.experiment, 0, len(board.ledger.digests[0]))
        assignments = draw_random(space, rng, board.ledger.known)
        issued = board.add(0, assignments)
        proposals.append(Proposal(issued.name(history.experiment), assignments, issued.labels()))
    return Suggestion(tuple(proposals), {SETTING: board.ledger.text()})
