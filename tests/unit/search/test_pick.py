"""A rule picks one trial of a front; one that nothing meets picks the nearest."""

import pytest
from kondense.search.definition import Search, TrialRecord
from kondense.search.history import Status
from kondense.search.pick import read_pick
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester

NAMES = ("accuracy", "size", "latency")
FRONT = [
    {"accuracy": 0.95, "size": 90.0, "latency": 3.0},
    {"accuracy": 0.91, "size": 40.0, "latency": 2.0},
    {"accuracy": 0.90, "size": 60.0, "latency": 1.0},
    {"accuracy": 0.80, "size": 10.0},
]


@pytest.mark.parametrize(
    ("rule", "picked", "met"),
    [
        ("accuracy >= 0.9, min latency", 2, True),
        ("accuracy >= 0.9, min size", 1, True),
        ("size <= 60, max accuracy", 1, True),
        ("latency <= 99, minimize size", 1, True),  # a trial without a latency keeps no bound of it
        ("min latency", 2, True),
        ("size <= 60, latency <= 2, min size, max accuracy", 1, True),
        ("accuracy >= 0.99, min size", 0, False),  # the nearest
        ("size <= 5", 3, False),
        ("latency <= 0.5, size <= 30", 2, False),
    ],
)
def test_the_trial_that_it_picks(rule, picked, met):
    pick = read_pick(rule, NAMES)
    assert pick.best(FRONT) == picked
    assert pick.met_by(FRONT[picked]) is met


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("best", "pick must be METRIC <= NUMBER, .*, joined by commas, or expected, but got 'best'"),
        ("accuracy > 0.9", "but got 'accuracy > 0.9'"),
        ("accuracy >= high", "but got 'accuracy >= high'"),
        ("min size,", "but got ''"),
        ("min size, max size", "pick must minimize or maximize each metric once, but 'size' is named already"),
        ("min bytes", r"pick must name metrics that trials report \(accuracy, size, latency\), but got 'bytes'"),
        ("bytes <= 5", "but got 'bytes'"),
    ],
)
def test_a_broken_rule_is_refused(rule, text):
    with pytest.raises(ValueError, match=text) as error:
        read_pick(rule, NAMES)
    assert "\n" not in str(error.value)


def test_the_model_picks():
    assert read_pick(" expected ", NAMES).is_expected
    assert not read_pick("min size", NAMES).is_expected


def test_no_rule():
    assert read_pick(" ", NAMES) is None


@pytest.mark.parametrize("constraints", ["", "size <= 500"])
@pytest.mark.parametrize(
    ("rule", "picked"),
    [
        ("value >= 0.85, min size", "small"),
        ("min size", "smallest"),
        ("size <= 120", "small"),  # the best of those that keep the bound
        ("value >= 0.85", "best"),
        ("size <= 5", "smallest"),  # none does: the nearest
        ("value >= 0.99, min size", "best"),
    ],
)
def test_with_one_objective_it_looks_at_all_trials(rule, picked, constraints):
    trials = [
        TrialRecord(name, {"x": "0.5"}, Status.SUCCEEDED, value=value, metrics={"size": size})
        for name, value, size in (
            ("smallest", 0.60, "10"),
            ("small", 0.86, "116"),
            ("best", 0.90, "177"),
            ("large", 0.90, "400"),
            ("low", 0.70, "150"),
        )
    ]
    space, settings = SearchSpace((Parameter("x", "double", 0, 1),)), {"constraints": constraints}
    given = {name: text for name, text in settings.items() if text}
    suggester, pick = load_suggester("random"), read_pick(rule, ("value", "size"))
    search = Search("e", "random", suggester, space, given, goal="maximize", metric="value", pick=pick)
    best = search.best(trials)
    assert best is not None and best.name == picked
