"""The Sobol sequence beside SciPy's, bit by bit."""

import numpy as np
import pytest
from kondense.search.sobol_sequence import Sequence
from scipy.stats import qmc

from tests.support.distribution import run_python


@pytest.mark.parametrize("dimensions", [1, 2, 3, 40])
def test_the_points_are_those_of_scipy(dimensions: int) -> None:
    expected = qmc.Sobol(dimensions, rng=np.random.default_rng(dimensions)).random(64)
    sequence = Sequence(dimensions, np.random.default_rng(dimensions))
    assert np.array_equal(expected, [sequence.point(number) for number in range(64)])


def test_a_point_far_on_needs_none_before_it() -> None:
    expected = qmc.Sobol(3, rng=np.random.default_rng(0))
    expected.fast_forward(123_456)
    assert np.array_equal(expected.random(1)[0], Sequence(3, np.random.default_rng(0)).point(123_456))


@pytest.mark.parametrize("algorithm", ["sobol", "cmaes"])
def test_a_proposal_does_not_import_scipy(algorithm: str) -> None:
    program = f"""
    import sys
    from kondense.search.history import History
    from kondense.search.suggesters import load_suggester
    from kondense.testing.suggesters import SPACE
    load_suggester({algorithm!r}).suggest(SPACE, {{}}, 0, History(), 2)
    print("scipy" in sys.modules)
    """
    assert run_python(program) == ["False"]
