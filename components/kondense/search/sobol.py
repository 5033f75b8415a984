"""Sobol sequence: configurations that fill the space evenly.

Source: Sobol 1967, with the direction numbers and the scrambling (Owen 1998, Matousek 1998) of SciPy. Deviations from
the sequence of Katib's own service: it is scrambled by `random_state` and the experiment's name, and mapped to the
space by the parameters' distributions and steps.
"""

from collections.abc import Mapping

import numpy as np

from kondense.errors import InputError
from kondense.search import goals
from kondense.search import settings as reading
from kondense.search.history import History, Suggestion
from kondense.search.ledger import digest
from kondense.search.sampling import draw_random, generator, seed_of
from kondense.search.sobol_sequence import Sequence
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

METHOD = {
    "name": "sobol",
    "kind": "single-fidelity",
    "summary": "Sobol sequence: configurations that fill the space evenly",
}
SETTINGS = goals.SETTINGS
AHEAD = 256  # points of the sequence that are tried for a new configuration of a finite space
MOST_DIMENSIONS = 21_201  # of SciPy's direction numbers


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts; a ValueError gives the broken rule and the value."""
    reading.check(settings, SETTINGS, max_trial_count, parallel_trial_count)
    if len(space.parameters) > MOST_DIMENSIONS:
        raise InputError(f"sobol takes at most {MOST_DIMENSIONS:,} parameters, but got {len(space.parameters):,}.")


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int | None:
    """Return the number of configurations in the space; None for a continuous space."""
    return space.size


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return the next `count` points of the sequence that are new configurations."""
    state = ExperimentState(history)
    fixed = seed_of(settings, seed)
    sequence = Sequence(len(space.parameters), generator(fixed, history.experiment, 0, 0))

    def draw(number: int) -> Mapping[str, str]:
        # Point i of the sequence went to configuration i or, where points coincided, to an earlier one.
        for place in range(number, number + AHEAD):
            configuration = space.from_unit(sequence.point(place)[np.newaxis])[0]
            if digest(configuration) not in state.ledger.known:
                return configuration
        return draw_random(space, generator(fixed, history.experiment, 0, number), state.ledger.known)

    return state.issue(count, draw)
