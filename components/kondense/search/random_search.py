"""Random search: configurations drawn from the space's distributions."""

from collections.abc import Mapping

from kondense.search import conditions, goals
from kondense.search import settings as reading
from kondense.search.history import History, Suggestion
from kondense.search.sampling import draw_random, generator, seed_of
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

METHOD = {
    "name": "random",
    "kind": "single-fidelity",
    "summary": "configurations drawn from the space's distributions",
}
SETTINGS = {**goals.SETTINGS, **conditions.SETTINGS}


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts; a ValueError gives the broken rule and the value."""
    reading.check(settings, SETTINGS, max_trial_count, parallel_trial_count)


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int | None:
    """Return the number of configurations in the space; None for a continuous space."""
    return space.size


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` configurations that differ from all issued ones while the space has any left."""
    state = ExperimentState(history)

    def draw(number: int) -> Mapping[str, str]:
        rng = generator(seed_of(settings, seed), history.experiment, 0, number)
        return draw_random(space, rng, state.ledger.known)

    return state.issue(count, draw)
