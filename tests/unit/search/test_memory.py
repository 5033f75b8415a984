"""What is kept between calls changes no answer, and stays bounded."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from kondense.search import state as states
from kondense.search.goals import Goals, read_goals
from kondense.search.history import History, Status, Trial
from kondense.search.memory import Memory
from kondense.search.space import Parameter, SearchSpace
from kondense.search.state import PARTS, ExperimentState
from kondense.search.suggesters import load_suggester
from numpy.typing import NDArray

SPACE = SearchSpace((Parameter("x", "double", 0, 1), Parameter("y", "double", 0, 1), Parameter("epochs", "int", 1, 9)))
HALVING = {"resource_name": "epochs", "objectives": "minimize size"}
DEPTHS = (3, 2, 1)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "PARTS", Memory[object](1_000))
    monkeypatch.setattr(states, "PLACES", Memory[object](1_000))


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget(monkeypatch)
    yield
    assert PARTS is not states.PARTS


def test_the_least_recently_used_value_goes_first() -> None:
    memory = Memory[str](3)
    for key in "abc":
        memory.put(key, key.upper(), 1)
    assert memory.get("a") == "A"
    memory.put("d", "D", 1)
    assert [memory.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert len(memory) == 3


def test_a_value_takes_the_place_of_the_last_one_of_its_key() -> None:
    memory = Memory[str](5)
    memory.put("a", "first", 4)
    memory.put("a", "second", 2)
    assert (memory.get("a"), len(memory)) == ("second", 2)


def test_a_value_that_is_too_large_is_not_kept_and_the_last_one_of_its_key_neither() -> None:
    memory = Memory[str](5)
    memory.put("a", "small", 1)
    memory.put("b", "other", 1)
    memory.put("a", "large", 6)
    assert (memory.get("a"), memory.get("b"), len(memory)) == (None, "other", 1)


def searched(total: int = 60) -> History:
    """Return a search of two goals in which all trials have ended, with brackets that are closed."""
    trials: list[Trial] = []
    goals = read_goals(HALVING, "loss", "minimize")
    history = History(goals=goals)
    while len(trials) < total:
        reply = load_suggester("hyperband").suggest(SPACE, HALVING, 0, history, 1)
        for item in reply.proposals:
            x, y = float(item.assignments["x"]), float(item.assignments["y"])
            trials.append(Trial(item.name, item.assignments, Status.SUCCEEDED, x, {"size": y, "other": 1 - y}))
        history = replace(history, trials=tuple(trials), issued=reply.settings["issued"])
    return history


def contents(history: History) -> object:
    """Return all that a state tells of a history."""
    state = ExperimentState(history, DEPTHS)
    rungs = [
        (list(rung.configs), list(rung.losses), None if rung.rows is None else rung.rows.tolist())
        for rungs in state.rungs
        for rung in rungs
    ]
    return repr((rungs, state.assignments, state.ledger.text()))


def changed(history: History, number: int, **fields: object) -> History:
    trials = list(history.trials)
    trials[number] = replace(trials[number], **fields)  # type: ignore[arg-type]
    return replace(history, trials=tuple(trials))


def variations(history: History) -> dict[str, History]:
    """Return histories that differ from one in what a closed bracket says."""
    return {
        "value": changed(history, 3, value=0.99),
        "metric": changed(history, 3, metrics={"size": 0.99}),
        "failure": changed(history, 3, status=Status.FAILED, value=None),
        "stopped early": changed(history, 3, status=Status.EARLY_STOPPED),
        "running again": changed(history, 3, status=Status.RUNNING, value=None),
        "gone": replace(history, trials=(*history.trials[:3], *history.trials[4:])),
        "direction": replace(history, goal="maximize", goals=read_goals(HALVING, "loss", "maximize")),
        "another metric": replace(history, goals=read_goals({"objectives": "minimize other"}, "loss", "minimize")),
        "one goal": replace(history, goals=None),
        "order": replace(history, trials=history.trials[::-1]),
        "another experiment": replace(history, experiment="another"),
    }


def test_a_state_is_that_of_its_own_history_whatever_was_seen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    history = searched()
    for name, other in variations(history).items():
        forget(monkeypatch)
        expected = contents(other)
        contents(history)
        assert len(states.PARTS) > 0
        assert contents(other) == expected, name
        assert contents(history) != expected or name == "order", name


def test_trials_that_a_state_issues_are_not_in_the_next_one() -> None:
    history = searched()
    expected = contents(history)
    state = ExperimentState(history, DEPTHS)
    for bracket in range(len(state.rungs)):
        state.promote(bracket, 1, 0)
        state.add(bracket, {"x": "0.5", "y": "0.5"})
    assert contents(history) == expected


def test_trials_that_are_those_of_the_last_call_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    history = searched()
    ExperimentState(history, DEPTHS)
    read: list[int] = []

    def counted(trials: object, sign: float) -> list[float]:
        read.append(len(trials))  # type: ignore[arg-type]
        return losses(trials, sign)  # type: ignore[arg-type]

    losses = states._losses
    monkeypatch.setattr(states, "_losses", counted)
    state = ExperimentState(changed(history, 3, value=0.99), DEPTHS)
    sizes = [sum(len(rung.configs) for rung in rungs) for rungs in state.rungs]
    assert read == [sizes[0], sizes[-1]]  # the one that changed, and the last one, which still grows
    assert len(sizes) > 3


def test_only_the_trials_of_a_resource_with_a_new_result_are_put_in_fronts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = searched()
    ExperimentState(history, DEPTHS)
    ordered: list[int] = []
    losses = Goals.losses

    def counted(goals: Goals, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        ordered.append(len(rows))
        return losses(goals, rows)

    monkeypatch.setattr(Goals, "losses", counted)
    at_least = [trial for trial in history.trials if trial.assignments["epochs"] == "1"]
    number = history.trials.index(at_least[3])
    ExperimentState(changed(history, number, metrics={"size": 0.99, "other": 0.01}), DEPTHS)
    assert ordered == [len(at_least)]
