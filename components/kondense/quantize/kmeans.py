"""k-means in one dimension, solved exactly.

Shapes: N values, B bins, K centroids.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINS = 512  # distinct values up to which the optimum is exact; more are first gathered in as many quantile bins


def optimal_centroids(values_N: Floats, count: int) -> Floats:
    """Return the at most ``count`` centroids with the least summed squared distance to the values, ascending.

    With more than BINS distinct values the optimum is that of bins of neighbouring values, and Lloyd's
    iteration then refines it on the values themselves.

    Source: Wang and Song 2011 (Ckmeans.1d.dp), the dynamic programme, vectorised over the last cluster's start.
    """
    distinct_B, weight_B = np.unique(values_N, return_counts=True)
    if len(distinct_B) <= count:
        return distinct_B
    if len(distinct_B) <= BINS:
        return _optimum(distinct_B, weight_B.astype(np.float64), count)
    parts = np.array_split(np.sort(values_N), BINS)
    means_B = np.array([part.mean() for part in parts])
    weight_B = np.array([len(part) for part in parts], np.float64)
    return _refined(values_N, np.unique(_optimum(means_B, weight_B, count)))


def nearest(values_N: Floats, centroids_K: Floats) -> NDArray[np.int64]:
    """Return the index of the centroid nearest to each value; ``centroids_K`` ascends."""
    return np.searchsorted((centroids_K[1:] + centroids_K[:-1]) / 2, values_N).astype(np.int64)


def _optimum(values_B: Floats, weight_B: Floats, count: int) -> Floats:
    """Return the centroids of the best split of ascending, weighted values into ``count`` runs."""
    size = len(values_B)
    values_B = values_B - (offset := float(np.average(values_B, weights=weight_B)))
    mass, first, second = (np.concatenate(([0.0], np.cumsum(weight_B * values_B**power))) for power in range(3))
    # cost_SE[s, e]: squared error of the run of values s..e-1 about its mean.
    starts, ends = np.arange(size)[:, None], np.arange(1, size + 1)[None, :]
    run_mass = np.where(ends > starts, mass[ends] - mass[starts], 1.0)
    cost_SE = second[ends] - second[starts] - (first[ends] - first[starts]) ** 2 / run_mass
    cost_SE = np.where(ends > starts, np.maximum(cost_SE, 0.0), np.inf)
    best_E = cost_SE[0]
    choices = []
    for _ in range(1, count):
        # The last run starts at s >= 1, and the runs before it end there.
        total_SE = np.concatenate(([np.inf], best_E[:-1]))[:, None] + cost_SE
        choices.append(total_SE.argmin(0))
        best_E = total_SE.min(0)
    end, bounds = size, [size]
    for choice_E in reversed(choices):
        end = int(choice_E[end - 1])
        bounds.append(end)
    edges = np.array([0, *reversed(bounds)])
    return (first[edges[1:]] - first[edges[:-1]]) / (mass[edges[1:]] - mass[edges[:-1]]) + offset


def _refined(values_N: Floats, centroids_K: Floats, rounds: int = 20) -> Floats:
    """Improve centroids by Lloyd's iteration until nothing moves or for ``rounds``."""
    for _ in range(rounds):
        chosen_N = nearest(values_N, centroids_K)
        mass_K = np.bincount(chosen_N, minlength=len(centroids_K))
        means_K = np.bincount(chosen_N, weights=values_N, minlength=len(centroids_K)) / np.maximum(mass_K, 1)
        moved_K = np.where(mass_K > 0, means_K, centroids_K)
        if np.array_equal(moved_K, centroids_K):
            break
        centroids_K = moved_K
    return np.unique(centroids_K)
