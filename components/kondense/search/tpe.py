"""Tree-structured Parzen estimator: configurations by a density ratio, at full resource only.

Source: Bergstra et al., "Algorithms for hyper-parameter optimization", 2011, with the densities of `density`.
"""

from collections.abc import Mapping

from kondense.search import parzen
from kondense.search import settings as reading
from kondense.search.history import History
from kondense.search.ledger import SETTING
from kondense.search.observations import collect
from kondense.search.parzen import ParzenConfig
from kondense.search.proposal import Proposal, Suggestion
from kondense.search.sampling import draw_random, first_new, generator, seed_of
from kondense.search.space import SearchSpace
from kondense.search.state import Board

RANDOM_FRACTION = 0.1  # default share of configurations drawn at random


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
    reading.check_names(settings, ("random_fraction", *parzen.SETTINGS))
    reading.check_counts(max_trial_count, parallel_trial_count)
    reading.read_number(settings, "random_fraction", RANDOM_FRACTION, 0, 1)
    ParzenConfig.read(settings)


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int | None:
    """Return the number of trials after which the method has nothing new; None for a continuous space."""
    return space.size


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` configurations that differ from all issued ones while the space has any.

    The ones asked for together differ because each draws its own candidates.
    """
    config = ParzenConfig.read(settings)
    random_fraction = reading.read_number(settings, "random_fraction", RANDOM_FRACTION, 0, 1)
    board = Board(history)
    observations = collect(board)
    if not board.rungs:
        board.start_bracket()
    proposals = []
    for _ in range(count):
        rng = generator(seed_of(settings, seed), history.experiment, 0, len(board.ledger.digests[0]))
        assignments = None
        if rng.random() >= random_fraction:
            rows = parzen.propose(space, board, observations, config, rng)
            assignments = None if rows is None else first_new(space, rows, board.ledger.known)
        if assignments is None:
            assignments = draw_random(space, rng, board.ledger.known)
        issued = board.add(0, assignments)
        proposals.append(Proposal(issued.name(history.experiment), assignments, issued.labels()))
    return Suggestion(tuple(proposals), {SETTING: board.ledger.text()})
