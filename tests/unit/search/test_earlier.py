"""Warm start from the trials of earlier searches: a right prior helps, a wrong one is forgotten."""

import json

import numpy as np
import pytest
from kondense.search.earlier import FEWEST, read_earlier
from kondense.search.goals import Constraint, Goals, Objective, all_goals
from kondense.search.history import Status
from kondense.search.ledger import identity
from kondense.search.observations import Observations
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester
from kondense.testing import check_suggester
from kondense.testing.suggesters import SPACE as CONFORMING
from kondense.testing.suggesters import run_experiment

SPACE = SearchSpace((Parameter("x", "double", 0, 1), Parameter("y", "double", 0, 1), Parameter("epochs", "int", 1, 9)))
SEARCHED = SPACE.without("epochs")
BANDS = {"resource_name": "epochs"}


def loss(point) -> float:
    return (float(point["x"]) - 0.8) ** 2 + (float(point["y"]) - 0.3) ** 2


def trials(sign: float = 1.0, names=("x", "y")) -> str:
    rng = np.random.default_rng(5)
    found = []
    for number in range(40):
        point = {"x": rng.random(), "y": rng.random()}
        resource = (1, 3, 9)[number % 3]
        found.append([{name: repr(point[name]) for name in names}, resource, [sign * loss(point) + 0.5 / resource]])
    return json.dumps(found)


def search(algorithm: str, settings, total: int):
    bands = BANDS if algorithm in ("hyperband", "bohb") else {}

    def result(proposal, rng):
        return Status.SUCCEEDED, loss(proposal.assignments) + 0.5 / int(proposal.assignments.get("epochs", "9"))

    space = SPACE if bands else SEARCHED
    return run_experiment(load_suggester(algorithm), space, bands | settings, parallel=1, total=total, result=result)


@pytest.mark.parametrize("algorithm", ["hyperband", "bohb", "tpe"])
def test_the_first_configurations_come_from_what_is_known(algorithm):
    cold, warm = (
        np.median([loss(trial.assignments) for trial in search(algorithm, settings, 9)])
        for settings in ({}, {"earlier": trials()})
    )
    assert warm < 0.3 * cold


@pytest.mark.parametrize("algorithm", ["hyperband", "bohb"])
def test_the_best_earlier_configuration_gets_the_whole_resource(algorithm):
    best = min((trial for trial in json.loads(trials()) if trial[1] == 9), key=lambda trial: trial[2])[0]
    ended = search(algorithm, {"earlier": trials()}, 22)
    found = [trial for trial in ended if best.items() <= trial.assignments.items()]
    assert [(trial.assignments["epochs"], identity(trial.name).bracket) for trial in found] == [("9", 2)]


def test_a_part_of_the_space_is_enough():
    ended = search("tpe", {"earlier": trials(names=("x",))}, 12)
    assert np.median([abs(float(trial.assignments["x"]) - 0.8) for trial in ended]) < 0.15
    assert np.ptp([float(trial.assignments["y"]) for trial in ended]) > 0.5  # of which nothing is known


def test_a_wrong_prior_is_forgotten():
    rng = np.random.default_rng(0)
    points = [{"x": repr(rng.random()), "y": repr(rng.random())} for _ in range(30)]

    class State:
        assignments = (points,)

    zeros = np.zeros(30, dtype=np.int64)
    seen = Observations(zeros, np.array([loss(point) for point in points]), zeros > 0, zeros, np.arange(30))
    right, wrong = (read_earlier({"earlier": trials(sign)}, SEARCHED, all_goals(None)) for sign in (1.0, -1.0))
    none = seen.take(np.empty(0, dtype=np.int64))
    assert right.share(none, State, 2) == wrong.share(none, State, 2) == pytest.approx(0.8)
    assert wrong.share(seen, State, 2) == 0
    assert right.share(seen, State, 2) > 0.5
    assert right.share(seen, State, 0) < 0.25  # 30 trials at the full resource know more


def test_several_objectives_are_ranked_together():
    goals = Goals((Objective("accuracy", "maximize"), Objective("size")))
    text = json.dumps([[{"x": repr(k / 10), "y": "0.5"}, None, [k / 10 if k < 6 else 0.1, k]] for k in range(10)])
    rows = read_earlier({"earlier": text}, SEARCHED, goals).propose(np.random.default_rng(0))
    assert rows[0][0] < 0.65  # beyond 0.5 the accuracy is lost and the size is large


def test_an_earlier_trial_without_the_value_of_a_constraint_is_not_feasible():
    """Optuna 5 counts it as feasible."""
    goals = Goals((Objective("accuracy", "maximize"),), (Constraint("size", "<=", 10),))
    found = [[{"x": repr(k / 10), "y": "0.5"}, None, [k / 10, (5, 9, 11, None)[k % 4]]] for k in range(8)]
    earlier = read_earlier({"earlier": json.dumps(found)}, SEARCHED, goals)
    assert earlier.best == {"x": "0.5", "y": "0.5"}  # of the better ones 0.6 is too large, 0.7 unknown
    unknown = [[point, resource, [value, None]] for point, resource, (value, _) in found]
    assert read_earlier({"earlier": json.dumps(unknown)}, SEARCHED, goals).best is None


def test_a_value_beyond_the_integers_of_numpy_is_a_number():
    known = json.loads(trials())
    known[0][2] = [2**64]  # an array of it would hold objects
    earlier = read_earlier({"earlier": json.dumps(known)}, SEARCHED, all_goals(None))
    assert earlier.best != known[0][0]
    goals = Goals((Objective("a", "minimize"),), ())
    assert goals.front([{"a": 2**64}, {"a": 0.5}]) == [1]


@pytest.mark.parametrize("algorithm", ["bohb", "tpe"])
def test_it_conforms(algorithm):
    text = json.dumps([[{"lr": repr(0.01 * (k + 1)), "optimizer": "sgd"}, k % 3 + 1, [k]] for k in range(6)])
    settings = {"earlier": text} | (BANDS if algorithm == "bohb" else {})
    check_suggester(load_suggester(algorithm), space=CONFORMING, settings=settings, trials=12)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("[", "setting earlier"),
        ("{}", "must be a list of 4 to 80 trials"),
        (json.dumps([[{"x": "0.5"}, 1, [1]]] * (FEWEST - 1)), "must be a list of 4 to 80 trials, but got 3"),
        (json.dumps([[{"x": "0.5"}, 1, [1]]] * 3 + [[{"y": "0.5"}, 1, [1]]]), "with the same parameters and 1 value"),
        (json.dumps([[{"x": "0.5"}, 1, [1, 2]]] * 4), "with the same parameters and 1 value"),
        (json.dumps([[{"x": 0.5}, 1, [1]]] * 4), "with the same parameters and 1 value"),
        (json.dumps([[{"x": "0.5"}, "1", [1]]] * 4), "with the same parameters and 1 value"),
        (json.dumps([5] * 4), "with the same parameters and 1 value"),
        (json.dumps(["a\nb"] * 4), r"with the same parameters and 1 value.*but got 'a\\nb'"),
        (json.dumps([[{"x": "7"}, 1, [1]]] * 4), "x must have a value of the space, but got '7'"),
        (json.dumps([[{"z": "7"}, 1, [1]]] * 4), "no parameter is called 'z'"),
    ],
)
def test_what_is_no_list_of_trials_is_refused(text, rule):
    for algorithm in ("hyperband", "bohb"):
        with pytest.raises(ValueError, match=rule) as error:
            load_suggester(algorithm).validate(SPACE, BANDS | {"earlier": text})
        assert "\n" not in str(error.value)
