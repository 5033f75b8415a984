"""Tree-structured Parzen estimator: configurations by a density ratio, at full resource only.

Source: Bergstra et al., "Algorithms for hyper-parameter optimization", 2011, with the densities of `density`.
"""

from collections.abc import Mapping

from kondense.search import parzen
from kondense.search import settings as reading
from kondense.search.history import History, Suggestion
from kondense.search.observations import collect
from kondense.search.parzen import ParzenConfig
from kondense.search.sampling import draw_random, first_new, generator, seed_of
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

METHOD = {
    "name": "tpe",
    "kind": "single-fidelity",
    "summary": "tree-structured Parzen estimator: the ratio of the densities of good and of other configurations",
}
SETTINGS = {"random_fraction": "share of configurations drawn at random (default 0.1)", **parzen.SETTINGS}
RANDOM_FRACTION = 0.1


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts; a ValueError gives the broken rule and the value."""
    reading.check(settings, SETTINGS, max_trial_count, parallel_trial_count)
    _random_fraction(settings)
    ParzenConfig.read(settings)


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int | None:
    """Return the number of configurations in the space; None for a continuous space."""
    return space.size


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` configurations that differ from all issued ones while the space has any left.

    Those of one request differ because each draws candidates of its own.
    """
    config = ParzenConfig.read(settings)
    random_fraction = _random_fraction(settings)
    state = ExperimentState(history)
    observations = collect(state)

    def draw(number: int) -> Mapping[str, str]:
        rng = generator(seed_of(settings, seed), history.experiment, 0, number)
        if rng.random() >= random_fraction:
            rows = parzen.propose(space, state, observations, config, rng)
            proposed = None if rows is None else first_new(space, rows, state.ledger.known)
            if proposed is not None:
                return proposed
        return draw_random(space, rng, state.ledger.known)

    return state.issue(count, draw)


def _random_fraction(settings: Mapping[str, str]) -> float:
    return reading.read_number(settings, "random_fraction", RANDOM_FRACTION, 0, 1)
