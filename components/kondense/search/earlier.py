"""Warm start: the trials of earlier searches, in the setting `earlier`.

They are a model of their own, a process over their configurations and resources, from which a share of the new
configurations is drawn. The share is what the model deserves: how well it ranks this search's trials at each resource,
and less with every trial at the full resource, so that a wrong model is forgotten after a few trials and a right one
when this search knows more. The best earlier configuration is among those that the search starts from.

The text is a JSON list of `[{parameter: value}, resource or null, [value of each metric of the goals]]`; all trials
have the same parameters, some or all of the space's. The value of a constraint may be null: such a trial does not count
as keeping it. `kondense search --earlier` makes the text from results and Experiments.

Legend: E earlier trials, N observations of this search, D parameters, S shared parameters.

Sources: Feurer, Letham and Bakshy 2018, "Scalable meta-learning for Bayesian optimization" (weights by ranks); Hvarfner
et al. 2022, "piBO" (a prior that fades); Mallik et al. 2023, "PriorBand" (a mixture of proposals).
"""

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError
from kondense.json_text import json_value
from kondense.search import acquisition
from kondense.search.gaussian_process import Process, temperature
from kondense.search.goals import Goals
from kondense.search.kernel import Data, encode
from kondense.search.observations import Observations, normal_scores
from kondense.search.parameter import Parameter
from kondense.search.sampling import first_new
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

Array = NDArray[np.float64]

SETTING = "earlier"
SETTINGS = {SETTING: "trials of earlier searches as JSON, which `kondense search --earlier` makes"}
MOST = 80  # trials; the cost of the process grows with their cube
FEWEST = 4
SHARE = 0.8  # largest share of the configurations that are drawn from the earlier trials
FAITH = 10  # pairs of trials that they are taken to have ranked right before there is any
HALF = 12  # trials at the full resource that halve the share
JUDGED = 60  # latest trials of a resource that are ranked


class Earlier:
    """Earlier trials of parameters of a space.

    Attributes:
        shared: the parameters that they have.
        best: the best one's configuration at the largest resource; None unless it has all parameters of the space and
            keeps the constraints.
    """

    def __init__(
        self, space: SearchSpace, assignments: list[Mapping[str, str]], resources: Array, rows: Array, goals: Goals
    ) -> None:
        """Rank the trials of each resource.

        Args:
            space: the searched parameters.
            assignments: of the shared parameters, [E].
            resources: of each, [E].
            rows: losses and excesses of the goals, [E, M + K] (`Goals.row`).
            goals: the objectives and constraints.
        """
        self.space = space
        self.shared = SearchSpace(tuple(each for each in space.parameters if each.name in assignments[0]))
        self._columns = [index for index, name in enumerate(space.names) if name in assignments[0]]
        self._unit = self.shared.to_unit(assignments)
        levels = np.unique(resources)
        self._gaps = len(levels) - 1 - np.searchsorted(levels, resources)
        losses = np.empty(len(rows))
        for gap in np.unique(self._gaps):
            losses[self._gaps == gap] = goals.losses(rows[self._gaps == gap])
        # Places of many and of few trials are compared as shares.
        counts = np.bincount(self._gaps)[self._gaps]
        self._scores = normal_scores((losses + 0.5) / counts)
        top = np.flatnonzero(self._gaps == 0)
        first = top[np.argmin(losses[top])]
        self.best = (
            space.settled({each.name: _spelled(each, assignments[first][each.name]) for each in space.parameters})
            if self.shared.names == space.names and (rows[first, len(goals.objectives) :] <= 0).all()
            else None
        )

    @cached_property
    def process(self) -> Process:
        """The model of the earlier trials, the same for every request."""
        data = Data(
            encode(self.shared, self._unit),
            self._gaps,
            self._scores - self._scores.mean(),
            len(self.shared.parameters),
        )
        return Process(data, np.random.default_rng(0))

    def propose(self, rng: np.random.Generator) -> Array:
        """Return unit-cube rows of the whole space, the most promising first, by a function drawn from the model."""
        drawn = self.process.draw(rng, temperature=temperature(rng))
        known = rng.random((len(self._unit), len(self.space.parameters)))
        known[:, self._columns] = self._unit

        def function(unit: Array) -> Array:
            return drawn(encode(self.shared, unit[:, self._columns]))

        return acquisition.minimize(function, self.space, self.space.snap(known), rng)

    def draw(self, rng: np.random.Generator, share: float, issued: Collection[str]) -> dict[str, str] | None:
        """Return a configuration from the earlier trials with the chance `share`, a new one; None otherwise."""
        return first_new(self.space, self.propose(rng), issued) if rng.random() < share else None

    def share(self, observations: Observations, state: ExperimentState, top: int) -> float:
        """Return the share of the configurations to draw from the earlier trials, [0, SHARE].

        Args:
            observations: of this search.
            state: its state.
            top: the level of the full resource.
        """
        agreeing, pairs = float(FAITH), float(FAITH)
        if len(observations):
            mean, _ = self.process.posterior()(
                encode(self.shared, observations.rows(self.space, state)[:, self._columns])
            )
            for level in np.unique(observations.levels):
                index = np.flatnonzero(observations.levels == level)[-JUDGED:]
                signs = _pairs(mean[index]) * _pairs(observations.losses[index])
                agreeing += float(signs.sum())
                pairs += float(np.abs(signs).sum())
        full = int((observations.levels == top).sum())
        return SHARE * max(agreeing / pairs, 0.0) * HALF / (HALF + full)


def read_earlier(settings: Mapping[str, str], space: SearchSpace, goals: Goals) -> Earlier | None:
    """Return the earlier trials; None without any.

    Args:
        settings: of the algorithm.
        space: the searched parameters, without the resource.
        goals: the objectives and constraints of the search.

    Raises:
        ValueError: the text is no list of trials of this space and these objectives.
    """
    text = settings.get(SETTING, "")
    if not text.strip():
        return None
    trials = json_value(text, f"setting {SETTING}")
    if not isinstance(trials, list) or not FEWEST <= len(trials) <= MOST:
        found = len(trials) if isinstance(trials, list) else repr(text[:60])
        raise InputError(f"setting {SETTING} must be a list of {FEWEST} to {MOST} trials, but got {found}.")
    names = trials[0][0] if isinstance(trials[0], list) and trials[0] else None
    for trial in trials:
        if not _is_trial(trial, names, goals):
            raise InputError(
                f"setting {SETTING} must have [{{parameter: text}}, resource or null, [value, ...]] with the same "
                f"parameters and {len(goals.metrics)} value(s) for each trial, but got {ascii(trial)[:80]}."
            )
        for name, value in trial[0].items():
            if not space[name].contains(value):
                raise InputError(f"setting {SETTING}: {name} must have a value of the space, but got {value!r}.")
    values = [dict(zip(goals.metrics, trial[2], strict=True)) for trial in trials]
    rows = [goals.row({name: value for name, value in each.items() if value is not None}) for each in values]
    resources = np.array([float(trial[1] or 0) for trial in trials])
    return Earlier(space, [trial[0] for trial in trials], resources, np.array(rows, np.float64), goals)


def _spelled(parameter: Parameter, text: str) -> str:
    """Return the nearest value of a parameter as a suggester spells it."""
    if parameter.levels is None:
        return repr(parameter.number(text))
    return parameter.from_unit(parameter.to_unit([text]))[0]


def _is_trial(trial: Any, names: Any, goals: Goals) -> bool:
    if not isinstance(trial, list) or len(trial) != 3 or not isinstance(trial[0], dict) or not trial[0]:
        return False
    assignments, resource, values = trial
    if not isinstance(values, list) or len(values) != len(goals.metrics):
        return False
    numbers = values[: len(goals.objectives)] + [each for each in values[len(goals.objectives) :] if each is not None]
    numbers += [resource] if resource is not None else []
    return (
        sorted(assignments) == sorted(names)
        and all(isinstance(value, str) for value in assignments.values())
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers)
    )


def _pairs(values: Array) -> Array:
    """Return the signs of the differences of all pairs."""
    upper = np.triu_indices(len(values), 1)
    return np.sign(values[upper[0]] - values[upper[1]])
