"""Learning-curve stopping against SciPy's regression and distribution, and by what it does to curves of known ends."""

import numpy as np
import pytest
from kondense.search.curve_stop import CurveStop, student_cdf, student_quantile
from scipy import stats

EARLY = [0.50, 0.62, 0.55, 0.71, 0.66, 0.40, 0.58]
ENDS = [0.68, 0.75, 0.70, 0.83, 0.80, 0.61, 0.74]


@pytest.mark.parametrize("degrees", [2, 3, 4, 7, 30, 501])
def test_the_distribution_is_scipys(degrees: int) -> None:
    for value in (0.0, 0.3, 1.0, 4.0, 90.0):
        assert student_cdf(value, degrees) == pytest.approx(stats.t.cdf(value, degrees), abs=1e-12)
    for probability in (0.5, 0.6, 0.95, 0.9999):
        assert student_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), abs=1e-9)


def chance(early: float) -> float:
    """Return the chance of an end above the best one, by SciPy's regression."""
    x, y = np.array(EARLY), np.array(ENDS)
    line = stats.linregress(x, y)
    error = np.sqrt(np.sum((y - line.intercept - line.slope * x) ** 2) / (len(x) - 2))
    scale = error * np.sqrt(1 + 1 / len(x) + (early - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2))
    return float(stats.t.sf((y.max() - line.intercept - line.slope * early) / scale, len(x) - 2))


@pytest.mark.parametrize("probability", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_at_the_bound_the_chance_to_become_the_best_is_the_one_asked_for(probability: float, goal: str) -> None:
    sign = 1 if goal == "maximize" else -1
    rule = CurveStop(probability=probability, start_step=2)
    curves = [[sign * (a - 0.1), sign * a, sign * b, sign * (b - 0.01)] for a, b in zip(EARLY, ENDS, strict=True)]
    bound = rule.bound([rule.summary(curve, goal) for curve in curves], goal)
    assert chance(sign * bound) == pytest.approx(probability)
    assert rule.stops([-sign, bound - sign * 0.01], bound, goal) and not rule.stops([-sign], bound, goal)
    assert not rule.stops([-sign, bound + sign * 0.01], bound, goal)


def test_no_trial_is_stopped_without_a_certain_relation() -> None:
    pairs = list(zip(EARLY, ENDS, strict=True))
    rule = CurveStop()
    assert rule.bound(pairs[:4], "maximize") is None  # too few
    assert rule.bound(list(zip(EARLY, reversed(ENDS), strict=True)), "maximize") is None
    assert rule.bound(list(zip(EARLY, sorted(ENDS)[::-1], strict=True)), "maximize") is None
    assert rule.bound([(0.5, end) for end in ENDS], "maximize") is None  # as if every trial began alike
    assert rule.summary([1.0] * rule.start_step, "maximize") is None  # nothing is left to foretell
    assert rule.bound([(x, x + 0.1) for x in EARLY], "maximize") == pytest.approx(max(EARLY))  # without error


@pytest.mark.parametrize("scale", [1e160, 1e300, 1.7e308])
def test_values_whose_squares_are_no_doubles_stop_no_trial(scale: float) -> None:
    rule = CurveStop(start_step=1)
    for pairs in ([(scale * a, b) for a, b in zip(EARLY, ENDS, strict=True)], [(a, scale * a) for a in EARLY]):
        assert rule.bound(pairs, "maximize") is None
        assert rule.bound(pairs, "minimize") is None


def test_a_best_trial_is_seldom_stopped_and_many_others_are() -> None:
    """Searches of 30 trials with power-law curves, crossing and noisy."""
    rule, rng, lost, stopped = CurveStop(), np.random.default_rng(3), 0, 0
    for _ in range(200):
        pairs: list[tuple[float, float]] = []
        for _ in range(30):
            level, drop, power = 0.3 + 0.2 * rng.random(), 0.4 + 0.1 * rng.random(), 0.6 + 0.4 * rng.random()
            curve = [level + drop * t**-power + 0.005 * rng.standard_normal() for t in range(1, 10)]
            bound = rule.bound(pairs, "minimize")
            if bound is not None and rule.stops(curve, bound, "minimize"):
                stopped += 1
                lost += min(curve) < min(end for _, end in pairs)
                continue
            pairs.append((min(curve[: rule.start_step]), min(curve)))
    assert stopped > 0.3 * 200 * 30
    assert lost <= 0.05 * 200 * 30 * 0.2


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"min_trials_required": "3"}, "min_trials_required must be a whole number of at least 4"),
        ({"start_step": "0"}, "start_step must be a whole number"),
        ({"probability": "0.6"}, r"probability must be in \[1e-06, 0.5\]"),
        ({"probability": "nan"}, "probability must be in"),
        ({"patience": "3"}, "unknown setting 'patience' of curvestop"),
    ],
)
def test_settings_are_checked(settings: dict[str, str], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        CurveStop.read(settings)
