"""Training data of a model: the finished trials of all rungs.

Legend: N observations, D parameters, M objectives, K constraints; levels number the resources from the smallest of all
brackets (0) to the full one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from kondense.search.space import SearchSpace
from kondense.search.state import FAILED, ExperimentState

UPPER = 0.75  # quantile of the losses above which they count as equal in `scores`, but for their ranks
LEAST_PER_LEVEL = 10  # minimum number of observations of a level in a selection


@dataclass(frozen=True)
class Observations:
    """Finished trials whose configuration is known.

    Args:
        levels: level of each, [N].
        losses: loss of each, [N]; a failed trial has the worst loss of its level.
        failed: whether each one failed, [N].
        brackets: bracket of each, [N].
        configs: number in the bracket of each, [N].
        rows_of_goals: losses and excesses of each goal, [N, M + K] (`Goals.row`); no columns with one objective.
    """

    levels: NDArray[np.int64]
    losses: NDArray[np.float64]
    failed: NDArray[np.bool_]
    brackets: NDArray[np.int64]
    configs: NDArray[np.int64]
    rows_of_goals: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))

    def __len__(self) -> int:
        """Return N."""
        return len(self.losses)

    def take(self, index: NDArray[np.int64]) -> "Observations":
        """Return the observations with these numbers."""
        rows = self.rows_of_goals[index] if len(self.rows_of_goals) else self.rows_of_goals
        return Observations(
            self.levels[index], self.losses[index], self.failed[index], self.brackets[index], self.configs[index], rows
        )

    def rows(self, space: SearchSpace, state: ExperimentState) -> NDArray[np.float64]:
        """Return the unit-cube rows of the configurations, [N, D]."""
        known = [state.assignments[b][c] or {} for b, c in zip(self.brackets, self.configs, strict=True)]
        return space.to_unit(known)


def collect(state: ExperimentState, rungs_per_bracket: Sequence[int] = (1,)) -> Observations:
    """Return all finished trials.

    Args:
        state: the experiment's state.
        rungs_per_bracket: of each bracket in one cycle; its rungs end at the full resource.
    """
    depth = max(rungs_per_bracket)
    places = [
        (depth - rungs_per_bracket[bracket % len(rungs_per_bracket)] + rung, bracket)
        for bracket, rungs in enumerate(state.rungs)
        for rung in range(len(rungs))
    ]
    every = [rung for rungs in state.rungs for rung in rungs]
    sizes = [len(rung.losses) for rung in every]
    levels, brackets = np.repeat(np.array(places, dtype=np.int64).reshape(-1, 2), sizes, axis=0).T
    configs = np.fromiter(chain.from_iterable(rung.configs for rung in every), np.int64, sum(sizes))
    losses = np.fromiter(chain.from_iterable(rung.losses for rung in every), np.float64, sum(sizes))
    rows = [rung.rows for rung in every if rung.rows is not None]
    failed = losses == FAILED
    usable = ~np.isnan(losses)
    for i in np.flatnonzero(failed):
        usable[i] = state.assignments[brackets[i]][configs[i]] is not None
    _penalize(levels, losses, failed)
    of_goals = np.concatenate(rows) if rows else np.empty((0, 0))
    return Observations(levels, losses, failed, brackets, configs, of_goals).take(np.flatnonzero(usable))


def _penalize(levels: NDArray[np.int64], losses: NDArray[np.float64], failed: NDArray[np.bool_]) -> None:
    """Give each failed trial the worst loss of its level, or of all levels if its own has none."""
    finite = np.isfinite(losses)
    for level in np.unique(levels[failed]):
        peers = losses[finite & (levels == level)]
        if not peers.size:
            peers = losses[finite]
        losses[failed & (levels == level)] = peers.max() if peers.size else 0.0


def select(observations: Observations, count: int, rng: np.random.Generator) -> Observations:
    """Return at most `count` observations: half of the remainder for each level from the top, the rest for the lowest.

    Of a level with more than its share, half of the share are its best observations, the others are drawn at random.
    """
    if len(observations) <= count:
        return observations
    kept: list[NDArray[np.int64]] = []
    left = count
    present = np.unique(observations.levels)[::-1]
    for level in present:
        index = np.flatnonzero(observations.levels == level)
        share = left if level == present[-1] else min(max(left // 2, LEAST_PER_LEVEL), left)
        if len(index) > share:
            index = index[np.argsort(observations.losses[index], kind="stable")]
            others = rng.choice(index[share // 2 :], share - share // 2, replace=False)
            index = np.concatenate([index[: share // 2], others])
        kept.append(index)
        left -= len(index)
    return observations.take(np.sort(np.concatenate(kept)))


def join(one: Observations, other: Observations) -> Observations:
    """Return the observations of both."""
    return Observations(
        **{each.name: np.concatenate([getattr(one, each.name), getattr(other, each.name)]) for each in fields(one)}
    )


def scores(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a process models, [N]: the mean of normal scores and of standardized losses.

    The ranks alone would pull apart losses that are nearly equal; the losses alone would be those of the worst.
    """
    ranks = normal_scores(losses)
    largest = np.frexp(np.abs(losses).max(initial=0.0))[1]
    losses = np.ldexp(losses, -largest)  # exact, and no sum or square of what is near the ends of doubles
    cut = np.minimum(losses, np.quantile(losses, UPPER))
    spread = float(cut.std())
    return (ranks + (cut - cut.mean()) / spread) / 2 if spread > 0 else ranks


def normal_scores(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard normal quantiles of the losses' ranks, [N]; equal losses share their mean rank."""
    _, inverse, counts = np.unique(losses, return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - counts / 2  # of each value's ranks, in (0, N)
    normal = NormalDist()
    return np.array([normal.inv_cdf(middle / len(losses)) for middle in middles])[inverse]
