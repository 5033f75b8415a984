"""Cut images so that every class has its share of each split.

A random cut of few images leaves classes out: of ten classes with ten images each, one in six splits of a twelfth holds
all of them. Of many images it hits every class well enough, and stays as it is.

Shapes: N images in a random order, K classes.
"""

import numpy as np
from numpy.typing import NDArray

ENOUGH = 10  # expected images of the smallest class from which on a random cut serves

Indices = NDArray[np.int64]


def cut(order_N: Indices, labels_N: Indices, count: int, *, left: int) -> tuple[Indices, Indices]:
    """Return ``count`` of some images and the others, both in their order.

    Every class gives in proportion to its images, at least one and not so many that fewer than ``left`` remain, as far
    as that is possible.

    Args:
        order_N: indices of the images in random order.
        labels_N: their classes, in the same order.
        count: how many to cut off, below N.
        left: images of each class that remain where it has more.
    """
    shares_K = quotas(np.bincount(labels_N), count, left=left)
    if shares_K is None:
        return order_N[:count], order_N[count:]
    place_N = np.empty(len(labels_N), np.int64)  # of each image among those of its class
    sorted_N = labels_N.argsort(kind="stable")
    starts_K = np.concatenate([[0], np.bincount(labels_N).cumsum()])
    place_N[sorted_N] = np.arange(len(labels_N)) - starts_K[labels_N[sorted_N]]
    taken_N = place_N < shares_K[labels_N]
    return order_N[taken_N], order_N[~taken_N]


def quotas(counts_K: Indices, count: int, *, left: int) -> Indices | None:
    """Return how many images every class gives, ``count`` in all; None: as a random cut has it.

    Args:
        counts_K: its images.
        count: how many are cut off.
        left: images of each class that remain where it has more.
    """
    ideal_K = counts_K * count / max(1, counts_K.sum())
    most_K = np.maximum(counts_K - left, 0)
    if not len(counts_K) or ideal_K[counts_K > 0].min(initial=np.inf) >= ENOUGH or most_K.sum() < count:
        return None
    given_K = np.minimum(np.floor(ideal_K).astype(np.int64), most_K)
    # First a class without any, the largest before others; then the one that lacks most of its share.
    for _ in range(count - int(given_K.sum())):
        wanted_K = np.where(given_K < most_K, ideal_K - given_K + counts_K.sum() * (given_K == 0), -np.inf)
        given_K[wanted_K.argmax()] += 1
    for label in np.flatnonzero((given_K == 0) & (most_K > 0)):  # rounding took all: from the class that has most
        richest = int((given_K - ideal_K + (given_K > 1) * len(counts_K)).argmax())
        if given_K[richest] < 2:
            break
        given_K[richest] -= 1
        given_K[label] += 1
    return given_K
