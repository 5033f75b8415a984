"""The Pareto front, hypervolumes, and an order of designs by several losses; smaller is better.

Legend: N points, M losses, F points of a front, S samples.

Sources: Deb et al. 2002, "NSGA-II" (fronts one after the other); Zitzler and Thiele 1998 (hypervolume); Guerreiro,
Fonseca and Paquete 2021, "The Hypervolume Indicator", section 4 (exact values by slices) and 5 (greedy subsets).
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Ranks = NDArray[np.int32]

MOST_RANKED = 100  # points that are put in fronts; the others follow by the sum of their ranks
AT_ONCE = 32  # points of a front that are found together
SAMPLES = 512  # points that stand for the volume between a front and its reference
REACH = 1.1  # distance of that reference from the front's best losses, relative to the front's extent


def nondominated(points: Array) -> NDArray[np.bool_]:
    """Return which of the points [N, M] no other one dominates, [N]; equal points do not dominate each other.

    A point dominates another one that it equals or betters in every loss, and betters in one. All must be numbers.
    """
    ranks = _ranks(points)
    front, _ = _first_front(ranks, np.argsort(ranks.sum(axis=1), kind="stable"))
    mask = np.zeros(len(points), dtype=bool)
    mask[front] = True
    return mask


def hypervolume(points: Array, reference: Array) -> float:
    """Return the volume that the points [N, M] dominate below the reference [M]; points beyond it add nothing."""
    inside = points[(points < reference).all(axis=1)]
    return _volume(inside[nondominated(inside)], reference) if len(inside) else 0.0


def order(points: Array) -> Index:
    """Return the numbers of the points [N, M], the best first: front by front, so that no point follows one it betters.

    Within a front the point with the largest hypervolume comes first, then always the one that adds most to those
    before it, so that the first few cover the front. Volumes are estimated by SAMPLES. Beyond MOST_RANKED points the
    order is by the sum of the losses' ranks, which the dominating point has smaller, too.
    """
    ranks = _ranks(points)
    left = np.argsort(ranks.sum(axis=1), kind="stable")
    done: list[Index] = []
    count = 0
    while len(left) and count < MOST_RANKED:
        front, left = _first_front(ranks, left)
        done.append(front[_covering(points[front])])
        count += len(front)
    return np.concatenate([*done, left])


def _ranks(points: Array) -> Index:
    """Return the dense ranks of each loss, [N, M]: a dominating point has the smaller sum, which is exact."""
    columns = [np.unique(points[:, column], return_inverse=True)[1] for column in range(points.shape[1])]
    return np.stack(columns, axis=1).astype(np.int32)  # comparisons of short numbers take less time


def _first_front(ranks: Index, left: Index) -> tuple[Index, Index]:
    """Return the points that no other one dominates, and the rest; `left` is in rising order of the sums of ranks."""
    front: list[Index] = []
    places = np.arange(len(left))  # in `left` of those that no point of the front dominates so far
    columns = ranks[left].T.copy()  # reductions over short rows take many times longer than one column at a time
    sums = columns.sum(axis=0)
    rest = np.zeros(len(left), dtype=bool)
    while len(places):
        # What dominates a point has a smaller sum, and so comes before it.
        within = _dominated(columns[:, :AT_ONCE], sums[:AT_ONCE], columns[:, :AT_ONCE], sums[:AT_ONCE])
        best = np.flatnonzero(~within)
        front.append(left[places[best]])
        behind = _dominated(columns[:, best], sums[best], columns, sums)
        rest[places[behind]] = True
        kept = ~behind
        kept[best] = False
        places, columns, sums = places[kept], columns[:, kept], sums[kept]
    return np.concatenate(front), left[rest]


def _dominated(columns: Index, sums: Index, others: Index, sums_of_others: Index) -> NDArray[np.bool_]:
    """Return which of other points one of some points dominates, by columns of ranks, [M, F] and [M, N], and sums."""
    worse = sums_of_others > sums[:, np.newaxis]  # with no smaller rank anywhere, a larger one somewhere
    for column, other in zip(columns, others, strict=True):
        worse &= other >= column[:, np.newaxis]
    return np.asarray(worse.any(axis=0))


def _covering(front: Array) -> Index:
    """Return the numbers of a front's points [F, M] in an order in which each adds most volume to those before it."""
    with np.errstate(all="ignore"):  # numbers near the limits of a double
        low = front.min(axis=0)
        span = front.max(axis=0) - low
        unit = (front - low) / np.where(span > 0, span, 1.0)
    samples = _samples(front.shape[1])
    within = np.ones((len(samples), len(front)), dtype=bool)
    for column, sample in zip(unit.T, samples.T, strict=True):
        within &= column <= sample[:, np.newaxis]
    covers = within.astype(np.float32)
    left = np.ones(len(covers), dtype=np.float32)
    chosen: list[int] = []
    for _ in range(len(front)):
        gains = left @ covers
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        chosen.append(best)
        left *= 1 - covers[:, best]
    taken = set(chosen)
    return np.array([*chosen, *(i for i in range(len(front)) if i not in taken)], dtype=np.int64)


@functools.cache
def _samples(losses: int) -> Array:
    """Return evenly spread points of the box up to REACH, [S, M]: a Kronecker sequence of golden ratios."""
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (losses + 1))
    steps = root ** -np.arange(1.0, losses + 1)
    return np.asarray((0.5 + np.arange(SAMPLES)[:, np.newaxis] * steps) % 1 * REACH, dtype=np.float64)


def _volume(front: Array, reference: Array) -> float:
    """Return the hypervolume of points that do not dominate each other, all below the reference, by slices."""
    if front.shape[1] == 1:
        return float(reference[0] - front.min())
    rows = front[np.argsort(front[:, -1], kind="stable")]
    if front.shape[1] == 2:
        lowest = np.minimum.accumulate(rows[:, 0])
        heights = np.diff(np.append(rows[:, 1], reference[1]))
        return float(((reference[0] - lowest) * heights).sum())
    total = []
    for number, (height, above) in enumerate(zip(rows[:, -1], [*rows[1:, -1], reference[-1]], strict=True), start=1):
        if above > height:
            slab = rows[:number, :-1]
            total.append((above - height) * _volume(slab[nondominated(slab)], reference[:-1]))
    return math.fsum(total)
