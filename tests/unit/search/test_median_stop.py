"""Median stopping against the medians and means of the standard library."""

import statistics

import pytest
from kondense.search.median_stop import MedianStop

CURVES = [[0.5, 0.4, 0.1], [900.0, 900.0], [0.3, 0.2], [0.6, 0.6, 0.6]]


def bound(rule: MedianStop, curves: list[list[float]]) -> float | None:
    summaries = [rule.summary(curve, "minimize") for curve in curves]
    return rule.bound([each for each in summaries if each is not None], "minimize")


def test_the_bound_is_the_median_of_the_averages_of_the_first_reports() -> None:
    averages = [statistics.fmean(curve[:2]) for curve in CURVES]
    assert bound(MedianStop(start_step=2), CURVES) == statistics.median(averages)
    assert statistics.fmean(averages) > 200  # Katib's own bound: one diverged trial turns it off
    assert bound(MedianStop(start_step=2, min_trials_required=5), CURVES) is None
    assert bound(MedianStop(min_trials_required=2), [[], [1.0]]) is None


@pytest.mark.parametrize(
    ("curve", "goal", "stops"),
    [
        ([0.9], "minimize", False),  # too early
        ([0.9, 0.8], "minimize", True),
        ([0.4, 0.8], "minimize", False),  # its best counts
        ([0.5, 0.5], "minimize", False),  # equal is not worse
        ([0.4, 0.3], "maximize", True),
        ([0.4, 0.6], "maximize", False),
    ],
)
def test_a_trial_stops_when_its_best_is_worse(curve: list[float], goal: str, stops: bool) -> None:
    assert MedianStop(start_step=2).stops(curve, 0.5, goal) is stops


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"min_trials_required": "0"}, "min_trials_required must be a whole number of at least 1"),
        ({"start_step": "x"}, "start_step must be a whole number"),
        ({"patience": "3"}, "unknown setting 'patience' of medianstop"),
    ],
)
def test_settings_are_checked_as_katib_checks_them(settings: dict[str, str], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        MedianStop.read(settings)


def test_reports_whose_sum_is_no_double_have_an_average() -> None:
    rule = MedianStop(min_trials_required=2, start_step=4)
    summaries = [rule.summary([value] * 3, "minimize") for value in (1e308, 1.5e308)]
    assert summaries == pytest.approx([1e308, 1.5e308])
    assert rule.bound(summaries, "minimize") == pytest.approx(1.25e308)


def test_the_defaults_are_katibs() -> None:
    assert MedianStop.read({}) == MedianStop(min_trials_required=3, start_step=4)
