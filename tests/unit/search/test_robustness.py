"""Searches of objectives that models handle badly: ties, constants, other scales, NaN, failures, odd spaces."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from kondense.search.history import Goal, Proposal, Status, Trial
from kondense.search.parameter import Parameter
from kondense.search.space import SearchSpace
from kondense.search.suggesters import load_suggester
from kondense.testing.suggesters import run_experiment

RESOURCE = Parameter("epochs", "int", 1, 9)
PLAIN = SearchSpace((Parameter("x", "double", 0, 1), Parameter("y", "double", 0, 1), RESOURCE))
SETTINGS = {"resource_name": "epochs"}
Loss = Callable[[Proposal, np.random.Generator], float | None]


def distance(proposal: Proposal) -> float:
    return sum((float(value) - 0.3) ** 2 for name, value in proposal.assignments.items() if name != "epochs")


def searched(
    loss: Loss, space: SearchSpace = PLAIN, *, total: int = 45, parallel: int = 1, goal: Goal = "minimize"
) -> list[Trial]:
    """Return the trials of a search by BOHB; no loss is a failure."""

    def result(proposal: Proposal, rng: np.random.Generator) -> tuple[Status, float | None]:
        value = loss(proposal, rng)
        return (Status.FAILED, None) if value is None else (Status.SUCCEEDED, value)

    bohb = load_suggester("bohb")
    return run_experiment(bohb, space, SETTINGS, parallel=parallel, total=total, result=result, goal=goal)


def proposed(trials: list[Trial]) -> list[dict[str, str]]:
    return [dict(trial.assignments) for trial in trials]


@pytest.fixture(scope="module")
def least() -> list[Trial]:
    return searched(lambda proposal, rng: distance(proposal))


def test_the_maximum_of_the_negative_is_searched_alike(least: list[Trial]) -> None:
    most = searched(lambda proposal, rng: -distance(proposal), goal="maximize")
    assert proposed(least) == proposed(most)


@pytest.mark.parametrize("scale", [2.0**-600, 2.0**1000])
def test_the_unit_of_the_objective_does_not_matter(scale: float, least: list[Trial]) -> None:
    scaled = searched(lambda proposal, rng: scale * distance(proposal))
    assert proposed(least) == proposed(scaled)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda proposal, rng: 1.0, id="constant"),
        pytest.param(lambda proposal, rng: math.floor(6 * distance(proposal)), id="ties"),
        pytest.param(lambda proposal, rng: math.exp(500 * distance(proposal)), id="many magnitudes"),
        pytest.param(lambda proposal, rng: 1e308 if rng.random() < 0.2 else -1e308, id="ends of doubles"),
        pytest.param(lambda proposal, rng: math.nan if rng.random() < 0.3 else distance(proposal), id="nan"),
        pytest.param(lambda proposal, rng: math.inf if rng.random() < 0.3 else distance(proposal), id="infinite"),
        pytest.param(lambda proposal, rng: None if rng.random() < 0.2 else distance(proposal), id="failures"),
        pytest.param(lambda proposal, rng: None, id="nothing but failures"),
        pytest.param(
            lambda proposal, rng: distance(proposal) if proposal.assignments["epochs"] == "9" else 1.0,
            id="nothing to see at low rungs",
        ),
        pytest.param(
            lambda proposal, rng: None if proposal.assignments["epochs"] == "9" else distance(proposal),
            id="failures at the full resource",
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_any_objective_is_searched_to_the_end(loss: Loss) -> None:
    trials = searched(loss)
    assert len({tuple(sorted(each.items())) for each in proposed(trials)}) == len(trials)


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param([Parameter("x", "double", 0, 1)], id="one"),
        pytest.param([Parameter(f"x{i}", "double", 0, 1) for i in range(40)], id="forty"),
        pytest.param([Parameter("x", "double", 1e-12, 1e12, distribution="logUniform")], id="many magnitudes"),
        pytest.param([Parameter(f"x{i}", "int", 0, 1) for i in range(7)], id="two values each"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_any_space_is_searched_to_the_end(parameters: list[Parameter]) -> None:
    space = SearchSpace((*parameters, RESOURCE))
    trials = searched(lambda proposal, rng: distance(proposal), space, parallel=16)
    assert len({tuple(sorted(each.items())) for each in proposed(trials)}) == len(trials)


def test_a_space_that_is_used_up_is_searched_again() -> None:
    space = SearchSpace((Parameter("x", "int", 1, 3), RESOURCE))
    assert len(searched(lambda proposal, rng: distance(proposal), space)) == 45


def test_it_is_better_than_chance_where_low_rungs_say_the_opposite() -> None:
    def loss(proposal: Proposal, rng: np.random.Generator) -> float:
        return distance(proposal) if proposal.assignments["epochs"] == "9" else -distance(proposal)

    late = searched(loss, total=90)[45:]
    tops = [distance(Proposal(trial.name, trial.assignments)) for trial in late if trial.assignments["epochs"] == "9"]
    rng = np.random.default_rng(0)
    chance = float(np.median(((rng.random((1_000, 2)) - 0.3) ** 2).sum(axis=1)))
    assert np.median(tops) < chance / 2
