"""Proposals by the ratio of two densities: good configurations over all others.

Legend: N observations, C candidates, D parameters; rows are unit-cube coordinates.

Source: Falkner et al., BOHB, ICML 2018, Algorithm 2; Bergstra et al. 2011 for the ratio. Deviations: at most MOST_GOOD
good and MOST_OTHERS other observations are used (the best, and a random draw), so that the cost stays constant; a
failed trial never counts as good. With several goals the good ones are the first fronts, as in Ozaki et al. 2022,
"Multiobjective TPE", and each constraint has a ratio of its own, `several.feasibility`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kondense.search import settings as reading
from kondense.search import several
from kondense.search.density import Density
from kondense.search.observations import Observations
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

SETTINGS = {
    "top_n_percent": "percentage of the observations that count as good, [1, 99] (default 15)",
    "min_points_in_model": "minimum size of either group; 0 (default): one more than there are parameters",
    "num_samples": "candidates, of which the one with the largest ratio is chosen (default 64)",
    "bandwidth_factor": "widening of the kernels from which candidates are drawn (default 3)",
    "min_bandwidth": "minimum bandwidth of an ordered parameter, in unit-cube coordinates (default 0.001)",
}
MOST_GOOD = 100
MOST_OTHERS = 300


@dataclass(frozen=True)
class ParzenConfig:
    """Settings of the density model, named as in the authors' package; SETTINGS describes them."""

    top_n_percent: float = 15.0
    min_points_in_model: int = 0
    num_samples: int = 64
    bandwidth_factor: float = 3.0
    min_bandwidth: float = 1e-3

    @classmethod
    def read(cls, settings: Mapping[str, str]) -> "ParzenConfig":
        """Read algorithm settings.

        Raises:
            ValueError: one breaks its rule; the message gives the rule and the value.
        """
        return cls(
            reading.read_number(settings, "top_n_percent", cls.top_n_percent, 1, 99),
            reading.read_integer(settings, "min_points_in_model", cls.min_points_in_model, minimum=0),
            reading.read_integer(settings, "num_samples", cls.num_samples, minimum=1),
            reading.read_number(settings, "bandwidth_factor", cls.bandwidth_factor, 0.01, 1e6),
            reading.read_number(settings, "min_bandwidth", cls.min_bandwidth, 1e-9, 1),
        )

    def least(self, space: SearchSpace) -> int:
        """Return the minimum number of observations in either group."""
        return self.min_points_in_model or len(space.parameters) + 1


def propose(
    space: SearchSpace,
    state: ExperimentState,
    observations: Observations,
    config: ParzenConfig,
    rng: np.random.Generator,
) -> NDArray[np.float64] | None:
    """Return candidates in falling order of the ratio, [C, D]; None with too few observations.

    Args:
        space: the searched parameters.
        state: the experiment's state, which holds the configurations.
        observations: of all levels; the highest level with enough of them is used.
        config: the settings.
        rng: source of randomness.
    """
    least = config.least(space)
    for level in np.unique(observations.levels)[::-1]:
        at_level = observations.take(np.flatnonzero(observations.levels == level))
        if len(at_level) >= least + 2 and int((~at_level.failed).sum()) >= 2:
            break
    else:
        return None
    order = np.lexsort((at_level.losses, at_level.failed))
    good = max(least, round(len(order) * config.top_n_percent / 100))
    good = min(good, int((~at_level.failed).sum()), len(order) - 2)
    others = order[good:]
    if len(others) > MOST_OTHERS:
        others = rng.choice(others, MOST_OTHERS, replace=False)
    better = Density(space, at_level.take(order[: min(good, MOST_GOOD)]).rows(space, state), config.min_bandwidth)
    worse = Density(space, at_level.take(others).rows(space, state), config.min_bandwidth)
    candidates = space.snap(better.sample(rng, config.num_samples, config.bandwidth_factor))
    ratio = better.log_density(candidates) - worse.log_density(candidates)
    ratio += several.feasibility(space, state, at_level, candidates, config.min_bandwidth)
    return np.asarray(candidates[np.argsort(-ratio, kind="stable")], dtype=np.float64)
