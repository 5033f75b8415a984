"""Minimization of a sampled function over a mixed space: random rows, then shrinking steps around the best.

Legend: C candidates, D parameters; rows are unit-cube coordinates.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kondense.search.space import SearchSpace

Array = NDArray[np.float64]

RANDOM = 100  # candidates from the whole space
NEAR = 60  # candidates around the best known configurations
STARTS = 10  # best known configurations
ROUNDS = 4
SURVIVORS = 5  # best candidates, the parents of the next round
CHILDREN = 50  # candidates of each round
REACH = 0.5  # maximum standard deviation of a step; multiplied by SHRINK each round
SHRINK = 0.6


def minimize(function: Callable[[Array], Array], space: SearchSpace, known: Array, rng: np.random.Generator) -> Array:
    """Return candidates in rising order of `function`, [C, D].

    Args:
        function: values [C] of rows [C, D].
        space: the parameters; candidates are in the middle of their cells.
        known: evaluated rows, [N, D]; the best by `function` are candidates and starting points.
        rng: source of randomness.
    """
    starts = known[np.argsort(function(known), kind="stable")[:STARTS]]
    rows = np.concatenate([starts, space.sample(rng, RANDOM), vary(space, starts, NEAR, REACH, rng)])
    rows = space.snap(rows)
    values = function(rows)
    for turn in range(ROUNDS):
        best = np.argsort(values, kind="stable")[:SURVIVORS]
        children = space.snap(vary(space, rows[best], CHILDREN, REACH * SHRINK**turn, rng))
        rows = np.concatenate([rows[best], children])
        values = np.concatenate([values[best], function(children)])
    return rows[np.argsort(values, kind="stable")]


def vary(space: SearchSpace, parents: Array, count: int, reach: float, rng: np.random.Generator) -> Array:
    """Return `count` rows, each a parent with at least one parameter changed.

    An ordered parameter changes by a normal step of standard deviation up to `reach`, clipped at the ends; a
    categorical one takes any value.
    """
    dimensions = len(space.parameters)
    rows = parents[rng.integers(len(parents), size=count)]
    share = np.maximum(rng.random((count, 1)) ** 2, 1 / dimensions)
    changed = rng.random((count, dimensions)) < share
    changed[np.arange(count), rng.integers(dimensions, size=count)] = True
    deviation = reach * np.exp(rng.uniform(-3, 0, (count, 1)))
    moved = np.clip(rows + deviation * rng.standard_normal((count, dimensions)), 0, 1)
    ordered = np.array([parameter.ordered for parameter in space.parameters])
    return np.where(changed, np.where(ordered, moved, rng.random((count, dimensions))), rows)
