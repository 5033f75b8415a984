"""Fronts, volumes and orders against brute force."""

import itertools

import numpy as np
import pytest
from kondense.search import pareto
from kondense.search.pareto import hypervolume, nondominated, order


def dominates(a, b) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def cells_below(points, reference) -> int:
    """The hypervolume of points of whole numbers from 0: the unit cells that one of them dominates."""
    cells = itertools.product(*(range(bound) for bound in reference))
    return sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)


@pytest.mark.parametrize("losses", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_fronts_and_volumes_are_those_of_brute_force(losses, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, (rng.integers(1, 20), losses)).astype(float)  # with ties and repeated points
    reference = rng.integers(3, 7, losses)  # some points lie beyond it
    assert nondominated(points).tolist() == [not any(dominates(q, p) for q in points) for p in points]
    assert hypervolume(points, reference.astype(float)) == cells_below(points, reference)


@pytest.mark.parametrize("losses", [2, 3])
def test_no_point_follows_one_that_it_dominates(losses, monkeypatch):
    monkeypatch.setattr(pareto, "MOST_RANKED", 20)  # most of them beyond it
    points = np.random.default_rng(losses).integers(0, 9, (120, losses)).astype(float)
    ranked = points[order(points)]
    assert sorted(map(tuple, ranked)) == sorted(map(tuple, points))
    assert not any(dominates(ranked[j], ranked[i]) for i in range(120) for j in range(i + 1, 120))


def test_the_first_of_a_front_cover_it():
    """The greedy subset of the same size by exact volumes is not more than 2 % better."""
    angle = np.random.default_rng(0).uniform(0, np.pi / 2, 60)
    front = 1 - np.stack([np.cos(angle), np.sin(angle)], axis=1)
    reference = np.full(2, pareto.REACH)
    exact: list[int] = []
    for _ in range(5):
        exact.append(max(range(60), key=lambda i: hypervolume(front[[*exact, i]], reference)))
    assert hypervolume(front[order(front)[:5]], reference) >= 0.98 * hypervolume(front[exact], reference)


def test_sums_that_rounding_would_tie_are_told_apart():
    points = np.array([[1e20, 1.0], [1e20, 0.0], [-1e308, 1e308], [1e308, -1e308]])
    assert nondominated(points).tolist() == [False, True, True, True]
    assert order(points).tolist().index(1) < order(points).tolist().index(0)
