"""Models of several goals: one for each objective, and others, apart from them, for each constraint.

Legend: N observations, C candidates, D parameters, M objectives, K constraints.

Sources: Paria, Kandasamy and Poczos 2020, "A flexible framework for multi-objective Bayesian optimization using random
scalarizations" (one draw of weights for each proposal); Golovin and Zhang 2020, "Random hypervolume scalarizations"
(their mean over the weights is the hypervolume); Watanabe and Hutter 2023, "c-TPE" (a density ratio per constraint).
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kondense.search.density import Density
from kondense.search.observations import Observations, normal_scores, scores
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

Array = NDArray[np.float64]
Drawn = Callable[[Array], Array]
"""A function drawn from a model: unit-cube rows [C, D] -> values [C]."""

BROKEN = 1e3  # added to a candidate that the model expects to break a constraint: more than any score
MARGIN = 1.0  # between the worst observed score of an objective and the reference of the hypervolume
FEWEST = 3  # observations on either side of a bound before its densities are compared


def targets(observations: Observations, state: ExperimentState) -> list[Array]:
    """Return the scores of each objective, [M] of [N]; with one objective those of the losses.

    A trial that lacks a value has the worst one of its level.
    """
    if state.goals is None:
        return [scores(observations.losses)]
    columns = observations.rows_of_goals[:, : len(state.goals.objectives)].T.copy()
    for column in columns:
        for level in np.unique(observations.levels[np.isnan(column)]):
            peers = column[observations.levels == level]
            peers = peers if not np.isnan(peers).all() else column
            worst = np.nanmax(peers) if not np.isnan(peers).all() else 0.0
            column[(observations.levels == level) & np.isnan(column)] = worst
    return [normal_scores(column) for column in columns]


def margins(observations: Observations, state: ExperimentState) -> list[tuple[NDArray[np.int64], Array]]:
    """Return for each constraint the observations that have its metric, and signed normal scores: above 0 is broken.

    The scores are those of the ranks on either side of the bound, so that the bound is 0 at every level. A constraint
    that all keep is left out.
    """
    found = []
    for excess in _excesses(observations, state):
        known = np.flatnonzero(~np.isnan(excess))
        over = excess[known] > 0
        if over.any():
            scores = np.empty(len(known))
            for side, sign in ((over, 1.0), (~over, -1.0)):
                if side.any():
                    scores[side] = sign * _half_normal_scores(np.abs(excess[known][side]))
            found.append((known, scores))
    return found


def scalarized(drawn: list[Drawn], worst: list[float], broken: list[Drawn], rng: np.random.Generator) -> Drawn:
    """Return what a proposal minimizes: the negative hypervolume scalarization with random weights.

    Args:
        drawn: functions drawn from the objectives' models, [M].
        worst: the largest target of each objective, [M].
        broken: functions drawn from the constraints' models, positive where one is broken, [K].
        rng: source of the weights.
    """
    weights = np.ones(1)
    if len(drawn) > 1:
        weights = np.abs(rng.standard_normal(len(drawn)))
        weights = np.maximum(weights / np.linalg.norm(weights), 1e-3)

    def function(unit: Array) -> Array:
        gains = [
            (bound + MARGIN - draw(unit)) / weight for draw, bound, weight in zip(drawn, worst, weights, strict=True)
        ]
        value: Array = -np.min(gains, axis=0)
        for draw in broken:
            over = draw(unit)
            value = value + np.where(over > 0, BROKEN * (1 + over), 0.0)
        return value

    return function


def calibrated(drawn: Drawn, rows: Array, scores: Array) -> Drawn:
    """Return a drawn function, shifted to fit the observed scores at unit-cube rows: a model leaves out the mean."""
    shift = float(np.mean(scores - drawn(rows)))
    return lambda unit: drawn(unit) + shift


def feasibility(
    space: SearchSpace, state: ExperimentState, observations: Observations, candidates: Array, min_bandwidth: float
) -> Array:
    """Return the sum over the constraints of the log ratio of two densities, kept over broken, at candidates: [C].

    A constraint with fewer than FEWEST observations on either side adds nothing.
    """
    total = np.zeros(len(candidates))
    for excess in _excesses(observations, state):
        kept, over = np.flatnonzero(excess <= 0), np.flatnonzero(excess > 0)
        if min(len(kept), len(over)) >= FEWEST:
            inside = Density(space, observations.take(kept).rows(space, state), min_bandwidth)
            outside = Density(space, observations.take(over).rows(space, state), min_bandwidth)
            # The chance to keep it, by Bayes' rule: near 1 far inside, so that it does not outweigh the objectives.
            odds = inside.log_density(candidates) - outside.log_density(candidates) + math.log(len(kept) / len(over))
            total -= np.logaddexp(0, -odds)
    return total


def _excesses(observations: Observations, state: ExperimentState) -> Array:
    """Return the excesses of each constraint, [K, N]."""
    if state.goals is None:
        return np.empty((0, len(observations)))
    return np.asarray(observations.rows_of_goals[:, len(state.goals.objectives) :].T, dtype=np.float64)


def _half_normal_scores(sizes: Array) -> Array:
    """Return the half-normal quantiles of the ranks of sizes, [N]: those of a normal distribution's absolute value."""
    mirrored = normal_scores(np.concatenate([sizes, -sizes]))
    return np.asarray(np.abs(mirrored[: len(sizes)]), dtype=np.float64)
