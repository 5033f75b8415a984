import itertools

import numpy as np
import pytest
from kondense.quantize.codebook import BINS, nearest, optimal_centroids


def squared_error(values, centroids):
    return float(((values - centroids[nearest(values, centroids)]) ** 2).sum())


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_no_split_of_a_few_values_is_better(count, seed):
    values = np.sort(np.random.default_rng(seed).normal(size=9).round(1))
    splits = itertools.combinations(range(1, 9), count - 1)
    errors = [sum(((run - run.mean()) ** 2).sum() for run in np.split(values, split)) for split in splits]
    assert squared_error(values, optimal_centroids(values, count)) == pytest.approx(min(errors), abs=1e-9)


@pytest.mark.parametrize(("count", "error"), [(2, 0.3634), (4, 0.1175), (8, 0.03454), (16, 0.009497)])
def test_a_normal_distribution_is_split_as_the_tables_say(count, error):
    # Max 1960, table I: the mean squared error of the optimum quantizer of a unit normal.
    values = np.random.default_rng(0).normal(size=40 * BINS)
    assert squared_error(values, optimal_centroids(values, count)) / len(values) == pytest.approx(error, rel=0.03)


def test_no_more_centroids_than_values():
    assert optimal_centroids(np.array([2.0, -1.0, 2.0]), 4).tolist() == [-1.0, 2.0]
