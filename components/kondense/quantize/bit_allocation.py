"""Which layer gets how many bits: the least total cost under a budget of bytes, exactly.

Shapes: L layers with C choices each; P states that nothing else beats.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError

LARGEST_FRONT = 200_000  # states kept per layer; a network with more of them gets the best of that many byte counts


def allocate(costs: Sequence[Sequence[float]], sizes: Sequence[Sequence[int]], budget_bytes: int) -> list[int]:
    """Return the choice of every layer such that the costs add up to the least and the sizes fit.

    Layer by layer, of all ways to get so far those are kept that cost less than every smaller one. So the result
    is the optimum, unless more than LARGEST_FRONT ways remain.

    Args:
        costs: [L][C], of each choice; they add up.
        sizes: [L][C], bytes.
        budget_bytes: of all layers together.

    Raises:
        ValueError: the smallest choices do not fit.
    """
    check_budget(sizes, budget_bytes)
    total_P, cost_P = np.zeros(1, dtype=np.int64), np.zeros(1)
    steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []  # where each state came from, and by what choice
    rest = np.cumsum([min(row) for row in reversed(sizes)])[::-1].tolist()[1:] + [0]  # what the layers to come need
    for layer_costs, layer_sizes, needed in zip(costs, sizes, rest, strict=True):
        totals = (total_P[:, None] + np.asarray(layer_sizes, dtype=np.int64)).ravel()
        sums = (cost_P[:, None] + np.asarray(layer_costs, dtype=np.float64)).ravel()
        kept = _front(totals, sums, budget_bytes - needed)
        steps.append((kept // len(layer_sizes), kept % len(layer_sizes)))
        total_P, cost_P = totals[kept], sums[kept]
    state = len(cost_P) - 1  # the front falls in cost
    chosen = []
    for came_from, choice in reversed(steps):
        chosen.append(int(choice[state]))
        state = int(came_from[state])
    return chosen[::-1]


def check_budget(sizes: Sequence[Sequence[int]], budget_bytes: int) -> None:
    """Raise ValueError unless the smallest choices fit the budget."""
    smallest = sum(min(row) for row in sizes)
    if smallest > budget_bytes:
        raise InputError(
            f"budget_bytes must be at least {smallest}, what the fewest bits take, but got {budget_bytes}."
        )


def _front(totals: NDArray[np.int64], sums: NDArray[np.float64], budget_bytes: int) -> NDArray[np.int64]:
    """Return the indices of the states within the budget that no smaller one beats, by rising size."""
    order = np.lexsort((sums, totals))
    order = order[totals[order] <= budget_bytes]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(sums[order])[:-1]))
    front = order[sums[order] < best_before]
    if len(front) > LARGEST_FRONT:
        cell = (totals[front] - totals[front[0]]) * LARGEST_FRONT // (totals[front[-1]] - totals[front[0]] + 1)
        front = front[np.flatnonzero(np.diff(cell, append=cell[-1] + 1))]  # the cheapest of each cell
    return front
