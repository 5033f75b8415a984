"""The trial that a model expects to be the best: among noisy losses, and among exact ones."""

import numpy as np
import pytest
from kondense.errors import InputError
from kondense.search import expected
from kondense.search.definition import Search, TrialRecord
from kondense.search.history import Status
from kondense.search.pick import read_pick
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester

SPACE = SearchSpace((Parameter("x", "double", 0, 1), Parameter("y", "double", 0, 1)))


def loss(configuration: dict[str, str]) -> float:
    return (float(configuration["x"]) - 0.4) ** 2 + (float(configuration["y"]) - 0.7) ** 2


def drawn(count: int, seed: int) -> list[dict[str, str]]:
    return SPACE.from_unit(SPACE.sample(np.random.default_rng(seed), count))


def test_it_is_better_than_the_luckiest_of_noisy_losses() -> None:
    lucky, chosen = [], []
    for seed in range(24):
        points, noise = drawn(40, seed), 0.2 * np.random.default_rng([seed, 1]).standard_normal(40)
        losses = [loss(point) + extra for point, extra in zip(points, noise, strict=True)]
        lucky.append(loss(points[int(np.argmin(losses))]))
        chosen.append(loss(points[expected.least(SPACE, points, losses, [1.0] * 40)]))
    assert np.mean(chosen) < 0.7 * np.mean(lucky)


def test_it_is_the_best_of_exact_losses() -> None:
    for seed in range(5):
        points = drawn(30, seed)
        losses = [loss(point) for point in points]
        assert expected.least(SPACE, points, losses, [1.0] * 30) == int(np.argmin(losses))


def test_only_trials_at_the_largest_resource_are_chosen_and_few_of_them_by_their_losses() -> None:
    points = drawn(6, 0)
    losses, resources = [0.0, 0.1, 0.2, 5.0, 4.0, 6.0], [1.0, 1.0, 1.0, 1.0, 3.0, 3.0]
    assert expected.least(SPACE, points, losses, resources) == 4
    assert expected.least(SPACE, points, losses, [1.0, 1.0, 1.0, 3.0, 3.0, 3.0]) in (3, 4, 5)


def search(rule: str, settings: dict[str, str], goal: str = "minimize") -> Search:
    picked = read_pick(rule, ("value", "size"))
    return Search("e", "random", load_suggester("random"), SPACE, settings, goal=goal, pick=picked)


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_a_search_with_the_rule_ends_with_it(goal: str) -> None:
    sign = 1.0 if goal == "minimize" else -1.0
    trials = [
        TrialRecord(f"t{number}", point, Status.SUCCEEDED, value=sign * loss(point))
        for number, point in enumerate([*drawn(20, 3), *({"x": f"0.9{digit}", "y": "0.05"} for digit in "234678")])
    ]
    lucky = TrialRecord("lucky", {"x": "0.95", "y": "0.05"}, Status.SUCCEEDED, value=sign * -0.01)
    assert search("", {}, goal).best([*trials, lucky]) is lucky
    assert search("expected", {}, goal).best([*trials, lucky]) is not lucky
    assert search("expected", {}, goal).best([]) is None


def test_several_goals_have_no_expected_one() -> None:
    with pytest.raises(InputError, match="pick expected needs one objective and no constraint, but got size"):
        search("expected", {"constraints": "size <= 5"})
