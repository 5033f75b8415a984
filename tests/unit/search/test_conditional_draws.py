"""What is proposed for a parameter that counts only with some values of another: its distribution, and what is learnt.

A parameter that does not count has its first value, so every mistake shows as too many first values where it counts.
"""

import collections
import math

import numpy as np
import pytest
from kondense.search.conditions import read_conditions
from kondense.search.history import History, Status
from kondense.search.parameter import Parameter
from kondense.search.space import SearchSpace
from kondense.search.suggesters import load_suggester
from kondense.testing.suggesters import run_experiment

RESOURCE = Parameter("epochs", "int", 1, 9)
SPEED = Parameter("lr", "double", 1e-4, 1.0, distribution="logUniform")
PARENT = Parameter("kind", "categorical", values=("none", "tanh", "relu"))
CHILDREN = {
    "int": Parameter("child", "int", 1, 5),
    "int with a step": Parameter("child", "int", 2, 14, 3),
    "int on a log scale": Parameter("child", "int", 1, 31, distribution="logUniform"),
    "double with a step": Parameter("child", "double", 0.0, 0.5, 0.1),
    "discrete": Parameter("child", "discrete", values=("8", "4", "2")),
    "categorical": Parameter("child", "categorical", values=("max", "mean", "last")),
}
COUNTS = ("tanh", "relu")


def space_with(child: Parameter, algorithm: str) -> tuple[SearchSpace, dict[str, str]]:
    parameters = (PARENT, child, SPEED, *((RESOURCE,) if algorithm in ("hyperband", "bohb") else ()))
    settings = {"conditions": "child if kind is tanh|relu"}
    if RESOURCE in parameters:
        settings["resource_name"] = "epochs"
    return SearchSpace(parameters, read_conditions(settings, parameters)), settings


def chances(child: Parameter) -> dict[str, float]:
    """Return the chance of each value, written out apart from the product."""
    if child.values:
        return dict.fromkeys(child.values, 1 / len(child.values))
    step = child.step or 1
    values = [child.low + step * index for index in range(round((child.high - child.low) / step) + 1)]
    if child.distribution == "uniform":
        share = {value: 1 / len(values) for value in values}
    else:  # as long as the logarithm of an int's cell, [n - 1/2, n + 1/2)
        ends = math.log(child.low - 0.5), math.log(child.high + 0.5)
        share = {value: math.log((value + 0.5) / (value - 0.5)) / (ends[1] - ends[0]) for value in values}
    return {str(int(value) if child.kind == "int" else round(value, 9)): each for value, each in share.items()}


@pytest.mark.parametrize("algorithm", ["random", "hyperband"])
@pytest.mark.parametrize("name", CHILDREN)
def test_where_it_counts_every_value_has_its_chance(algorithm: str, name: str) -> None:
    """Both ends of a range as often as its middle, and the first value no more often than the others."""
    child = CHILDREN[name]
    space, settings = space_with(child, algorithm)
    found: collections.Counter[str] = collections.Counter()
    for seed in range(10):
        made = load_suggester(algorithm).suggest(space, settings, seed, History(experiment="e"), 100)
        for proposal in made.proposals:
            if proposal.assignments["kind"] in COUNTS:
                found[proposal.assignments["child"]] += 1
            else:
                assert proposal.assignments["child"] == space.settled(dict(proposal.assignments))["child"]
    expected, total = chances(child), found.total()
    assert total > 550  # two of three values of the parent
    assert found.keys() <= expected.keys()
    for value, chance in expected.items():
        deviation = math.sqrt(total * chance * (1 - chance))
        assert abs(found[value] - total * chance) < 4.5 * deviation, (value, found, expected)


@pytest.mark.parametrize("algorithm", ["tpe", "bohb"])
@pytest.mark.parametrize("name", ["int", "int on a log scale", "double with a step"])
def test_good_trials_in_which_it_does_not_count_say_nothing_about_it(algorithm: str, name: str) -> None:
    """Without the child a trial is as good as with one of the child's high values: its first one must not look good."""
    child = CHILDREN[name]
    space, settings = space_with(child, algorithm)
    settings["random_state"] = "3"

    def result(proposal: object, rng: np.random.Generator) -> tuple[Status, float]:
        values = proposal.assignments
        unit = float(space.to_unit([{**values}])[0, 1]) if values["kind"] in COUNTS else 0.7
        return Status.SUCCEEDED, 1 - unit + 0.02 * float(rng.standard_normal())

    trials = run_experiment(load_suggester(algorithm), space, settings, parallel=2, total=60, result=result)
    late = [trial.assignments for trial in trials[30:] if trial.assignments["kind"] in COUNTS]
    places = space.to_unit(late)[:, 1]
    assert len(places) >= 8
    assert places.mean() > 0.65  # 0.5 at random


@pytest.mark.parametrize("algorithm", ["tpe", "bohb"])
def test_of_noise_a_model_learns_nothing_for_good(algorithm: str) -> None:
    """Every value is still proposed where it counts, and none of them most of the time."""
    space, settings = space_with(CHILDREN["int"], algorithm)
    found: collections.Counter[str] = collections.Counter()
    for seed in range(2):
        settings["random_state"] = str(seed)
        trials = run_experiment(
            load_suggester(algorithm),
            space,
            settings,
            parallel=2,
            total=60,
            result=lambda _, rng: (Status.SUCCEEDED, float(rng.random())),
        )
        found.update(trial.assignments["child"] for trial in trials if trial.assignments["kind"] in COUNTS)
    assert set(found) == {"1", "2", "3", "4", "5"}
    assert max(found.values()) < 0.6 * found.total()
