"""Tree-structured Parzen estimator: configurations by a density ratio, at full resource only.

Source: Bergstra et al., "Algorithms for hyper-parameter optimization", 2011, with the densities of `density`.
"""

import dataclasses
from collections.abc import Mapping

from kondense.errors import InputError
from kondense.search import conditions, goals, parzen
from kondense.search import earlier as earlier_trials
from kondense.search import settings as reading
from kondense.search.earlier import read_earlier
from kondense.search.goals import all_goals, read_goals
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
SETTINGS = {
    "random_fraction": "share of configurations drawn at random (default 0.1)",
    **parzen.SETTINGS,
    "gamma": "share of the observations that count as good, (0, 1), Katib's name (default 0.15)",
    "n_EI_candidates": "candidates, same as num_samples, Katib's name (default 64)",
    "prior_weight": "weight of the space's distributions among the good observations, Katib's name; "
    "sets the share drawn at random instead of random_fraction",
    **goals.SETTINGS,
    **conditions.SETTINGS,
    **earlier_trials.SETTINGS,
}
KATIB_NAMES = {"gamma": "top_n_percent", "n_EI_candidates": "num_samples", "prior_weight": "random_fraction"}
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
    _random_fraction(settings, 0)
    _config(settings)
    read_earlier(settings, space, all_goals(read_goals(settings, "", "minimize")))


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int | None:
    """Return the number of configurations in the space; None for a continuous space."""
    return space.size


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` configurations that differ from all issued ones while the space has any left.

    Those of one request differ because each draws candidates of its own.
    """
    config = _config(settings)
    state = ExperimentState(history)
    observations = collect(state)
    random_fraction = _random_fraction(settings, max(round(len(observations) * config.top_n_percent / 100), 1))

    earlier = read_earlier(settings, space, all_goals(history.goals, history.goal))
    share = earlier.share(observations, state, 0) if earlier else 0.0

    def draw(number: int) -> Mapping[str, str]:
        if earlier is not None:
            if number == 0 and earlier.best is not None:
                return earlier.best
            rng = generator(seed_of(settings, seed), f"{history.experiment}/earlier", 0, number)
            proposed = earlier.draw(rng, share, state.ledger.known)
            if proposed is not None:
                return proposed
        rng = generator(seed_of(settings, seed), history.experiment, 0, number)
        if rng.random() >= random_fraction:
            rows = parzen.propose(space, state, observations, config, rng)
            proposed = None if rows is None else first_new(space, rows, state.ledger.known)
            if proposed is not None:
                return proposed
        return draw_random(space, rng, state.ledger.known)

    return state.issue(count, draw)


def _config(settings: Mapping[str, str]) -> ParzenConfig:
    """Return the density's settings by either name.

    Raises:
        ValueError: one breaks its rule, or is given by both names.
    """
    for name, ours in KATIB_NAMES.items():
        if name in settings and ours in settings:
            raise InputError(f"settings {name} and {ours} mean the same: give one of them.")
    config = ParzenConfig.read(settings)
    gamma = reading.read_number(settings, "gamma", config.top_n_percent / 100, 0, 1)
    if not 0 < gamma < 1:
        raise InputError(f"setting gamma must be in (0, 1), but got {settings['gamma']!r}.")
    candidates = reading.read_integer(settings, "n_EI_candidates", config.num_samples, minimum=1)
    return dataclasses.replace(config, top_n_percent=100 * gamma, num_samples=candidates)


def _random_fraction(settings: Mapping[str, str], good: int) -> float:
    """Return the share drawn at random: the prior's share of a mixture with `good` observations, where it is set."""
    if "prior_weight" not in settings:
        return reading.read_number(settings, "random_fraction", RANDOM_FRACTION, 0, 1)
    weight = reading.read_number(settings, "prior_weight", 1, 0, 1e9)
    if weight == 0:
        raise InputError(f"setting prior_weight must be above 0, but got {settings['prior_weight']!r}.")
    return weight / (weight + good)
