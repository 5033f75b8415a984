"""The choice of bits against brute force."""

import itertools

import numpy as np
import pytest
from kondense.quantize.mixed import allocate


def brute_force(costs: list[list[float]], sizes: list[list[int]], budget: int) -> float:
    """Return the least cost of all combinations that fit."""
    choices = range(len(costs[0]))
    return min(
        sum(row[choice] for row, choice in zip(costs, combination, strict=True))
        for combination in itertools.product(choices, repeat=len(costs))
        if sum(row[choice] for row, choice in zip(sizes, combination, strict=True)) <= budget
    )


def problem(seed: int, *, ties: bool) -> tuple[list[list[float]], list[list[int]], int]:
    rng = np.random.default_rng(seed)
    layers = int(rng.integers(1, 7))
    sizes = [[int(count) * bits // 8 + 7 for bits in range(2, 7)] for count in rng.integers(10, 900, layers)]
    costs = rng.integers(0, 4, (layers, 5)).astype(float) if ties else rng.exponential(size=(layers, 5))
    smallest, largest = (sum(row[index] for row in sizes) for index in (0, -1))
    return costs.tolist(), sizes, int(smallest + rng.random() * (largest - smallest))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_no_combination_that_fits_costs_less(seed: int, ties: bool) -> None:
    costs, sizes, budget = problem(seed, ties=ties)
    chosen = allocate(costs, sizes, budget)
    assert sum(row[choice] for row, choice in zip(sizes, chosen, strict=True)) <= budget
    found = sum(row[choice] for row, choice in zip(costs, chosen, strict=True))
    assert found == pytest.approx(brute_force(costs, sizes, budget), abs=1e-12)


def test_budgets_at_their_ends() -> None:
    costs, sizes = [[3.0, 1.0], [5.0, 0.5]], [[10, 20], [30, 50]]
    assert allocate(costs, sizes, 40) == [0, 0]
    assert allocate(costs, sizes, 59) == [1, 0]
    assert allocate(costs, sizes, 60) == [0, 1]
    assert allocate(costs, sizes, 70) == [1, 1]
    with pytest.raises(ValueError, match="budget_bytes must be at least 40, the size at the fewest bits, but got 39"):
        allocate(costs, sizes, 39)


def test_a_front_cut_short_still_fits_and_is_nearly_the_best() -> None:
    rng = np.random.default_rng(0)
    sizes = [[int(count) * bits for bits in range(2, 9)] for count in rng.integers(1000, 100_000, 12)]
    costs = [sorted(rng.exponential(size=7), reverse=True) for _ in sizes]
    budget = sum(row[2] for row in sizes)
    exact = allocate(costs, sizes, budget)
    short = allocate(costs, sizes, budget, most_states=300)
    totals = [sum(row[choice] for row, choice in zip(costs, chosen, strict=True)) for chosen in (exact, short)]
    assert sum(row[choice] for row, choice in zip(sizes, short, strict=True)) <= budget
    assert totals[0] <= totals[1] < 1.05 * totals[0]
