"""The trial that a model expects to be the best, where the best observed one may only have been lucky.

With noise the least of many observed losses is mostly one of a good configuration and a lucky draw. A Gaussian process
over all trials, of every resource, takes the noise off: what a configuration's neighbours and its own smaller resources
showed counts, too. Source: Frazier 2018, "A Tutorial on Bayesian Optimization", section 4.1, on noisy evaluations.

Legend: N trials, D parameters.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kondense.search.gaussian_process import Process
from kondense.search.kernel import Data, encode
from kondense.search.observations import Observations, join, scores, select
from kondense.search.space import SearchSpace

MOST = 80  # best trials at the largest resource, among which is the one that is chosen
OTHERS = 60  # trials besides these from which the process learns
FEWEST = 3  # trials at the largest resource before the process decides


def least(
    space: SearchSpace,
    configurations: Sequence[Mapping[str, str]],
    losses: Sequence[float],
    resources: Sequence[float],
    name: str = "",
) -> int:
    """Return the number of the trial at the largest resource with the least expected loss.

    With fewer than FEWEST trials there, or without a parameter that varies, it is that with the least observed loss.

    Args:
        space: the searched parameters, without the resource.
        configurations: of the trials, at least one.
        losses: observed, finite.
        resources: of the trials.
        name: of the search, which fixes the random part of the fit.
    """
    values = np.array(losses, dtype=np.float64)
    levels: NDArray[np.int64] = np.unique(np.array(resources), return_inverse=True)[1].astype(np.int64)
    top = int(levels.max())
    order = np.flatnonzero(levels == top)
    order = order[np.argsort(values[order], kind="stable")]
    if len(order) < FEWEST or not space.parameters:
        return int(order[0])
    every = Observations(levels, values, np.zeros(len(values), bool), np.zeros_like(levels), np.arange(len(values)))
    kept, rng = order[:MOST], np.random.default_rng(zlib.crc32(name.encode()))
    rest = every.take(np.setdiff1d(np.arange(len(values)), kept))
    chosen = join(every.take(kept), select(rest, OTHERS, rng)) if len(rest) else every.take(kept)
    encoding = encode(space, space.to_unit([configurations[number] for number in chosen.configs]))
    targets = scores(chosen.losses)
    data = Data(encoding, top - chosen.levels, targets - targets.mean(), len(space.parameters))
    candidates = encode(space, space.to_unit([configurations[number] for number in kept]))
    mean, _ = Process(data, rng, averaged=True).posterior()(candidates)
    return int(kept[int(np.argmin(mean))])
