import math

import numpy as np
import pytest
from kondense.search import parzen
from kondense.search.acquisition import minimize, vary
from kondense.search.history import History, Proposal, Status, Trial
from kondense.search.ledger import identity
from kondense.search.observations import Observations, collect, select
from kondense.search.parzen import ParzenConfig
from kondense.search.space import Parameter, SearchSpace
from kondense.search.state import ExperimentState
from kondense.search.suggesters import load_suggester
from kondense.testing.suggesters import run_experiment

SPACE = SearchSpace((Parameter("x", "double", 0.0, 1.0), Parameter("epochs", "int", 1, 9)))
SETTINGS = {"resource_name": "epochs"}


def state_after(fates: dict[int, tuple[Status, float | None]], missing: tuple[int, ...] = ()) -> ExperimentState:
    """Return the state after nine trials of the lowest rung: losses 0, 1, ... but for `fates`."""
    suggestion = load_suggester("hyperband").suggest(SPACE, SETTINGS, 0, History(), 9)
    trials = [
        Trial(proposal.name, proposal.assignments, *fates.get(index, (Status.SUCCEEDED, float(index))))
        for index, proposal in enumerate(suggestion.proposals)
        if index not in missing
    ]
    return ExperimentState(History(tuple(trials), suggestion.settings["issued"]))


def test_a_failed_trial_has_the_worst_loss_of_its_level() -> None:
    state = state_after({2: (Status.FAILED, None), 5: (Status.RUNNING, None), 6: (Status.KILLED, 3.0)}, missing=(8,))
    observations = collect(state, [3, 2, 1])
    assert observations.configs.tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert observations.losses.tolist() == [0, 1, 7, 3, 4, 7, 7]
    assert observations.failed.tolist() == [False, False, True, False, False, True, False]
    assert observations.levels.tolist() == [0] * 7
    assert observations.rows(SPACE.without("epochs"), state).shape == (7, 1)


def test_a_trial_counts_at_its_own_resource_alone() -> None:
    """One that starts above the smallest resource says nothing of it (Ray 2.60 puts its loss there)."""

    def result(proposal: Proposal, rng: np.random.Generator) -> tuple[Status, float | None]:
        return Status.SUCCEEDED, float(proposal.assignments["epochs"]) + float(proposal.assignments["x"])

    trials = run_experiment(load_suggester("hyperband"), SPACE, SETTINGS, parallel=1, total=22, result=result)
    issued = ""
    reported: list[Trial] = []
    for trial in trials:
        history = History(tuple(reported), issued, experiment="e")
        reply = load_suggester("hyperband").suggest(SPACE, SETTINGS, 1, history, 1)
        assert reply.proposals[0].name == trial.name
        reported.append(trial)
        issued = reply.settings["issued"]
    observations = collect(ExperimentState(History(tuple(reported), issued, experiment="e")), [3, 2, 1])
    expected = [(int(math.log(int(trial.assignments["epochs"]), 3) + 0.5), trial.value) for trial in trials]
    assert sorted(zip(observations.levels.tolist(), observations.losses.tolist(), strict=True)) == sorted(expected)
    first = {identity(trial.name).bracket: level for trial, (level, _) in zip(trials, expected, strict=True)}  # type: ignore[union-attr]
    assert len(first) == 3


def test_losses_of_a_maximized_objective_are_turned_round() -> None:
    suggestion = load_suggester("hyperband").suggest(SPACE, SETTINGS, 0, History(), 1)
    trials = tuple(Trial(p.name, p.assignments, Status.SUCCEEDED, 0.9) for p in suggestion.proposals)
    state = ExperimentState(History(trials, suggestion.settings["issued"], goal="maximize"))
    assert collect(state, [3, 2, 1]).losses.tolist() == [-0.9]


def test_all_failed_is_no_error() -> None:
    observations = collect(state_after({index: (Status.FAILED, None) for index in range(9)}), [3, 2, 1])
    assert observations.losses.tolist() == [0.0] * 9
    assert observations.failed.all()


def test_a_selection_keeps_the_best_and_something_of_every_level() -> None:
    rng = np.random.default_rng(0)
    levels = np.repeat([0, 1, 2], [500, 100, 5])
    losses = rng.random(605)
    zeros = np.zeros(605, dtype=np.int64)
    chosen = select(Observations(levels, losses, zeros > 0, zeros, np.arange(605)), 80, rng)
    assert len(chosen) == 80
    assert np.bincount(chosen.levels).tolist() == [38, 37, 5]
    for level in (0, 1):
        best = np.sort(losses[levels == level])[:18]
        assert set(best) <= set(chosen.losses[chosen.levels == level])


def test_the_density_model_waits_for_enough_points_and_keeps_failures_out_of_the_good() -> None:
    space, rng = SPACE.without("epochs"), np.random.default_rng(0)
    state = state_after({index: (Status.FAILED, None) for index in range(4, 9)})
    observations = collect(state, [3, 2, 1])
    assert parzen.propose(space, state, observations.take(np.arange(3)), ParzenConfig(), rng) is None
    rows = parzen.propose(space, state, observations, ParzenConfig(num_samples=32), rng)
    assert rows is not None
    assert rows.shape == (32, 1)


def test_candidates_find_the_minimum_of_a_mixed_space() -> None:
    space = SearchSpace(
        (
            Parameter("x", "double", 0.0, 1.0),
            Parameter("c", "categorical", values=("a", "b", "c")),
            Parameter("i", "int", 1, 4),
        )
    )

    def distance(unit: np.ndarray) -> np.ndarray:
        return (unit[:, 0] - 0.3) ** 2 + (unit[:, 1] < 2 / 3) + (unit[:, 2] - 0.375) ** 2

    rng = np.random.default_rng(0)
    best = minimize(distance, space, space.sample(rng, 5), rng)[0]
    assert best[0] == pytest.approx(0.3, abs=0.05)
    assert space.from_unit(best[np.newaxis])[0] | {"x": ""} == {"x": "", "c": "c", "i": "2"}


def test_a_variation_changes_something_and_stays_inside() -> None:
    rng = np.random.default_rng(0)
    parents = rng.random((3, 2))
    space = SearchSpace((Parameter("x", "double", 0.0, 1.0), Parameter("y", "double", 0.0, 1.0)))
    rows = vary(space, parents, 200, 0.5, rng)
    assert ((rows >= 0) & (rows <= 1)).all()
    assert not any((row == parents).all(axis=1).any() for row in rows)
