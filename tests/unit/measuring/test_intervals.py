"""Intervals of medians: coverage on times whose median is known."""

import numpy as np
import pytest
from kondense.measuring.intervals import median_interval, ratio_interval
from scipy.stats import bootstrap


def correlated(rng: np.random.Generator, turns: int, memory: float) -> np.ndarray:
    """Return times whose median is 10 and of which neighbours are alike."""
    steps = rng.normal(size=turns)
    values = np.zeros(turns)
    for turn in range(1, turns):
        values[turn] = memory * values[turn - 1] + steps[turn]
    return 10 * np.exp(0.1 * values)


@pytest.mark.parametrize(("memory", "least"), [(0.0, 0.88), (0.8, 0.85)])
def test_the_interval_holds_the_true_median_nearly_as_often_as_it_says(memory: float, least: float) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        interval = median_interval(correlated(rng, 800, memory), rng)
        held += interval.low <= 10 <= interval.high
    assert held / 200 >= least


def test_of_independent_times_it_is_that_of_scipys_bootstrap() -> None:
    samples = correlated(np.random.default_rng(3), 40, 0.0)
    found = median_interval(samples, np.random.default_rng(0))
    expected = bootstrap((samples,), np.median, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert found.value == np.median(samples)
    spread = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.2 * spread)
    assert found.high == pytest.approx(expected.high, abs=0.2 * spread)


def test_what_slows_both_models_down_leaves_their_ratio_sure() -> None:
    rng = np.random.default_rng(1)
    load = np.repeat(rng.uniform(1, 3, size=40), 20)  # other work comes and goes, for both alike
    noise = rng.normal(1, 0.01, size=(2, 800))
    slow, fast = 4 * load * noise[0], 2 * load * noise[1]
    ratio = ratio_interval(slow, fast, rng)
    alone = median_interval(slow, rng)
    assert ratio.low <= 2 <= ratio.high
    assert (ratio.high - ratio.low) / ratio.value < 0.2 * (alone.high - alone.low) / alone.value


def test_one_turn_is_its_own_interval() -> None:
    interval = median_interval(np.array([3.0]), np.random.default_rng(0))
    assert (interval.low, interval.value, interval.high) == (3.0, 3.0, 3.0)


def test_models_of_different_turns_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="must have 3 turns, but got 2"):
        ratio_interval(np.ones(3), np.ones(2), np.random.default_rng(0))
