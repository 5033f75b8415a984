"""Bayesian optimization: a Gaussian process of all results and an acquisition function.

Source: Snoek, Larochelle and Adams 2012; Ginsbourger et al. 2010 for the constant liar, by which the proposals of one
request differ. The settings are those of Katib's own service, which uses scikit-optimize. Deviations: gp_hedge takes
one of the three functions at random, not by their gains; steps, integers and logarithmic ranges are heeded.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError
from kondense.search import acquisition
from kondense.search import settings as reading
from kondense.search.gaussian_process import Process
from kondense.search.history import History, Suggestion
from kondense.search.kernel import Data, encode
from kondense.search.observations import Observations, collect, normal_scores, select
from kondense.search.parameter import STANDARD_NORMAL
from kondense.search.sampling import draw_random, first_new, generator, seed_of
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

METHOD = {
    "name": "bayesianoptimization",
    "kind": "single-fidelity",
    "summary": "Gaussian process of all results; the best expected improvement, probability or bound is next",
}
SETTINGS = {
    "n_initial_points": "trials with a result before the model proposes (default 10)",
    "acq_func": "EI, PI, LCB or gp_hedge (default): one of the three at random",
    "base_estimator": "GP, a Gaussian process",
    "acq_optimizer": "auto (default) or sampling: random candidates, then steps around the best",
}
FUNCTIONS = ("gp_hedge", "EI", "PI", "LCB")
KAPPA = 1.96  # standard deviations of the lower confidence bound, as in scikit-optimize
MARGIN = 0.01  # of an improvement, as in scikit-optimize
FEWEST = 2  # observations of a process
MOST = 120  # observations of a process; its cost grows with their cube

Array = NDArray[np.float64]


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts; a ValueError gives the broken rule and the value."""
    reading.check(settings, SETTINGS, max_trial_count, parallel_trial_count)
    reading.read_integer(settings, "n_initial_points", 10, minimum=0)
    _offered(settings, "base_estimator", ("GP",), ("RF", "ET", "GBRT"))
    _offered(settings, "acq_func", FUNCTIONS, ("EIps", "PIps"))
    _offered(settings, "acq_optimizer", ("auto", "sampling"), ("lbfgs",))


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int | None:
    """Return the number of configurations in the space; None for a continuous space."""
    return space.size


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` configurations that differ from all issued ones while the space has any left."""
    state = ExperimentState(history)
    observations = collect(state)
    enough = len(observations) >= max(reading.read_integer(settings, "n_initial_points", 10, minimum=0), FEWEST)
    name = settings.get("acq_func", FUNCTIONS[0])

    def draw(number: int) -> Mapping[str, str]:
        rng = generator(seed_of(settings, seed), history.experiment, 0, number)
        if enough:
            rows = _propose(space, state, observations, name, rng)
            proposed = first_new(space, rows, state.ledger.known)
            if proposed is not None:
                return proposed
        return draw_random(space, rng, state.ledger.known)

    return state.issue(count, draw)


def _offered(settings: Mapping[str, str], name: str, ours: tuple[str, ...], others: tuple[str, ...]) -> None:
    value = settings.get(name, ours[0])
    if value in others:
        raise InputError(f"setting {name}={value} of Katib is not offered here; {name} may be {', '.join(ours)}.")
    reading.read_choice(settings, name, ours)


def _propose(
    space: SearchSpace, state: ExperimentState, observations: Observations, name: str, rng: np.random.Generator
) -> Array:
    """Return candidates [C, D], the best by the acquisition function first."""
    chosen = select(observations, MOST, rng)
    rows, targets = chosen.rows(space, state), normal_scores(chosen.losses)
    running = [
        values
        for values, loss in zip(state.assignments[0], state.rung(0, 0).losses, strict=True)
        if math.isnan(loss) and values is not None
    ]
    # The liar: trials without a result yet count as average, which lowers the variance around them.
    rows = np.concatenate([rows, space.to_unit(running[-MOST:])]) if running else rows
    targets = np.concatenate([targets, np.full(len(rows) - len(targets), targets.mean())])
    encoding = encode(space, rows)
    process = Process(
        Data(encoding, np.zeros(len(rows), dtype=np.int64), targets - targets.mean(), len(space.parameters)), rng
    )
    posterior = process.posterior()
    best = float(posterior(encoding)[0].min())
    function = str(rng.choice(FUNCTIONS[1:])) if name == "gp_hedge" else name

    def loss(unit: Array) -> Array:
        return _loss(function, *posterior(encode(space, unit)), best)

    return acquisition.minimize(loss, space, rows, rng)


def _loss(name: str, mean: Array, deviation: Array, best: float) -> Array:
    """Return the negative acquisition [C] from the posterior's mean [C] and standard deviation [C]."""
    if name == "LCB":
        return mean - KAPPA * deviation
    gain = best - MARGIN - mean
    score = gain / deviation
    below = np.array([STANDARD_NORMAL.cdf(x) for x in score.tolist()])
    if name == "PI":
        return -below
    density = np.exp(-0.5 * score**2) / math.sqrt(2 * math.pi)
    return np.asarray(-(gain * below + deviation * density), dtype=np.float64)
