"""CMA-ES: a normal distribution of configurations that adapts its mean and covariance from generation to generation.

A generation is a bracket of the ledger, so a trial's name has its generation, and the state of the strategy is replayed
from the history. A generation ends once as many trials as its population have a result; workers that are free earlier
receive further members of it. Failed trials count as the worst of their generation. Categorical parameters are drawn at
random, as in Katib's own service; all others are coordinates of the unit cube.

Source: Hansen, "The CMA Evolution Strategy: A Tutorial", 2016, by the package cmaes; IPOP: Auger and Hansen 2005;
BIPOP: Hansen 2009.
"""

import functools
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError
from kondense.search import settings as reading
from kondense.search.history import History, Suggestion
from kondense.search.ledger import digest
from kondense.search.sampling import draw_random, generator, seed_of
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

METHOD = {
    "name": "cmaes",
    "kind": "single-fidelity",
    "summary": "covariance matrix adaptation: generations drawn from a normal distribution that adapts",
}
RESTARTS = ("none", "None", "ipop", "bipop")
SETTINGS = {
    "sigma": "initial standard deviation as a share of each range, (0, 1] (default 1/6)",
    "restart_strategy": "none (default), ipop (a restart doubles the population) or bipop (large and small ones)",
}
SIGMA = 1 / 6
GROWTH = 2  # of the population at a restart
TRIES = 32  # draws before a configuration is drawn from the whole space because all were issued before


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts; a ValueError gives the broken rule and the value."""
    reading.check(settings, SETTINGS, max_trial_count, parallel_trial_count)
    _settings(settings)
    ranges = [parameter.name for parameter in space.parameters if parameter.kind in ("double", "int")]
    if len(ranges) < 2:
        raise InputError(f"cmaes needs at least two parameters of type double or int, but got {len(ranges)}.")


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int | None:
    """Return the number of configurations in the space; None for a continuous space."""
    return space.size


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` members of the current generation, and of the next where the current one has its results."""
    sigma, restart = _settings(settings)
    state = ExperimentState(history)
    fixed = seed_of(settings, seed)
    evolution = _Evolution(space, sigma, restart, generator(fixed, f"{history.experiment}/restarts", 0, 0))
    ended = True
    for number in range(len(state.rungs)):
        rows, losses = _finished(space, state, number)
        ended = number + 1 < len(state.rungs) or len(rows) >= evolution.size
        if ended:
            evolution.learn(rows, losses)
    if ended:
        state.start_bracket()
    generation = len(state.rungs) - 1
    proposals = []
    for _ in range(count):
        rng = generator(fixed, history.experiment, generation, len(state.ledger.digests[generation]))
        assignments = _draw(space, evolution, rng, state)
        proposals.append(state.proposal(state.add(generation, assignments), assignments))
    return state.reply(proposals)


def _settings(settings: Mapping[str, str]) -> tuple[float, str]:
    sigma = reading.read_number(settings, "sigma", SIGMA, 0, 1)
    if sigma == 0:
        raise InputError(f"setting sigma must be above 0, but got {settings['sigma']!r}.")
    return sigma, reading.read_choice(settings, "restart_strategy", RESTARTS).lower()


def _finished(
    space: SearchSpace, state: ExperimentState, generation: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows [N, D] and losses [N] of a generation's members that have ended."""
    rung = state.rung(generation, 0)
    members = [
        (values, loss)
        for values, loss in zip(state.assignments[generation], rung.losses, strict=True)
        if values is not None and not math.isnan(loss)
    ]
    losses = np.array([loss for _, loss in members])
    finite = losses[np.isfinite(losses)]
    losses[~np.isfinite(losses)] = finite.max() if finite.size else 0.0
    rows = space.to_unit([values for values, _ in members]) if members else np.empty((0, len(space.parameters)))
    return rows, losses


class _Evolution:
    """The strategy's distribution over the ordered parameters, advanced by generations.

    Attributes:
        size: members with a result that end a generation.
    """

    def __init__(self, space: SearchSpace, sigma: float, restart: str, rng: np.random.Generator) -> None:
        self.ordered = np.array([parameter.ordered for parameter in space.parameters])
        self._sigma, self._restart, self._rng = sigma, restart, rng
        self._dimensions = int(self.ordered.sum())
        self._first_size = 4 + math.floor(3 * math.log(self._dimensions))
        self._restarts, self._small, self._spent = 0, False, [0, 0]  # evaluations of large and of small populations
        self.size = self._first_size
        self._optimizer = self._begin(np.full(self._dimensions, 0.5), self.size)

    def _begin(self, mean: NDArray[np.float64], size: int) -> Any:
        bounds = np.tile([0.0, 1.0], (self._dimensions, 1))
        return _strategy()(mean=mean, sigma=self._sigma, bounds=bounds, population_size=size, seed=0)

    def learn(self, rows: NDArray[np.float64], losses: NDArray[np.float64]) -> None:
        """Advance by one generation; one of which too few trials are still reported is left out."""
        if len(rows) < self.size:
            return
        self._optimizer.tell(list(zip(rows[: self.size, self.ordered], losses[: self.size].tolist(), strict=True)))
        self._spent[self._small] += self.size
        if self._restart != "none" and self._optimizer.should_stop():
            self.size = self._next_size()
            self._optimizer = self._begin(self._rng.random(self._dimensions), self.size)

    def _next_size(self) -> int:
        if self._restart == "bipop" and self._spent[1] < self._spent[0] and self._restarts:
            self._small = True
            return max(2, math.floor(self._first_size * (GROWTH**self._restarts) ** (self._rng.random() ** 2)))
        self._small = False
        self._restarts += 1
        return self._first_size * int(GROWTH**self._restarts)

    def ask(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Return rows [count, ordered parameters] drawn with `rng`."""
        self._optimizer.reseed_rng(int(rng.integers(2**31)))
        return np.array([self._optimizer.ask() for _ in range(count)])


@functools.cache
def _strategy() -> Any:
    """Return cmaes's class CMA: from its file, because the package imports SciPy's statistics, 65 MiB, for others."""
    package = importlib.util.find_spec("cmaes")
    assert package is not None and package.submodule_search_locations, "the package depends on cmaes"
    file = Path(package.submodule_search_locations[0]) / "_cma.py"
    spec = importlib.util.spec_from_file_location("kondense.search._cma", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CMA


def _draw(
    space: SearchSpace, evolution: _Evolution, rng: np.random.Generator, state: ExperimentState
) -> dict[str, str]:
    for _ in range(TRIES):
        row = space.sample(rng, 1)
        row[:, evolution.ordered] = evolution.ask(rng, 1)
        configuration = space.from_unit(row)[0]
        if digest(configuration) not in state.ledger.known:
            return configuration
    return draw_random(space, rng, state.ledger.known)
