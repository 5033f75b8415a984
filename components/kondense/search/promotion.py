"""Promotions by a model: what each waiting configuration promises at the full resource, its own results included.

A Gaussian process over all rungs predicts it. Where low rungs follow the full resource closely, this is the order of
the losses, with less of their noise; where curves cross, results of the high rungs correct it.

Legend: N observations, D parameters.
"""

from collections.abc import Callable, Sequence

import numpy as np

from kondense.search.gaussian_process import Process
from kondense.search.kernel import Array, Data, Encoding, encode
from kondense.search.observations import Observations, join, scores, select
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

MOST = 60  # observations of the process besides those of the rung
LEAST_AT_TOP = 3  # observations at the full resource before the process decides


Posterior = Callable[[Encoding], tuple[Array, Array]]


class Judge:
    """Orders configurations by the posterior mean at the full resource.

    Args:
        space: the searched parameters.
        state: the experiment's state, which holds the configurations.
        observations: the finished trials.
        rungs_per_bracket: of each bracket in one cycle.
        generator: returns the source of randomness of the process.
    """

    def __init__(
        self,
        space: SearchSpace,
        state: ExperimentState,
        observations: Observations,
        rungs_per_bracket: Sequence[int],
        generator: Callable[[], np.random.Generator],
    ) -> None:
        self.space, self.state, self.observations = space, state, observations
        self.generator = generator
        self.rungs_per_bracket, self.top = rungs_per_bracket, max(rungs_per_bracket) - 1
        self._posteriors: dict[tuple[int, int], Posterior] = {}

    def __call__(self, bracket: int, rung: int, configs: list[int], losses: list[float]) -> Sequence[float]:
        """Return what orders the configurations, the least first: their losses while too little is known."""
        enough = int((self.observations.levels == self.top).sum()) >= LEAST_AT_TOP
        if len(configs) < 2 or not enough or self.state.goals is not None:  # noqa: PLR2004
            return losses
        rows = self.space.to_unit([self.state.assignments[bracket][config] or {} for config in configs])
        if (bracket, rung) not in self._posteriors:
            self._posteriors[bracket, rung] = self._posterior(bracket, rung)
        mean, _ = self._posteriors[bracket, rung](encode(self.space, rows))
        promise: list[float] = mean.tolist()
        return promise

    def _posterior(self, bracket: int, rung: int) -> Posterior:
        """Return that of a process of a selection of the observations and all of one rung."""
        rng = self.generator()
        level = self.top + 1 - self.rungs_per_bracket[bracket % len(self.rungs_per_bracket)] + rung
        here = (self.observations.brackets == bracket) & (self.observations.levels == level)
        others = select(self.observations.take(np.flatnonzero(~here)), MOST, rng)
        chosen = join(self.observations.take(np.flatnonzero(here)), others)
        encoding = encode(self.space, chosen.rows(self.space, self.state))
        targets = scores(chosen.losses)
        data = Data(encoding, self.top - chosen.levels, targets - targets.mean(), len(self.space.parameters))
        return Process(data, rng, averaged=True).posterior()
