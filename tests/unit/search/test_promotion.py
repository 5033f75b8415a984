"""Promotions by a model: curves that cross, and curves that do not."""

from collections.abc import Callable

import numpy as np
import pytest
from kondense.search.history import History, Status, Trial
from kondense.search.observations import collect
from kondense.search.promotion import Judge
from kondense.search.space import Parameter, SearchSpace
from kondense.search.state import ExperimentState
from kondense.search.suggesters import load_suggester

SPACE = SearchSpace((Parameter("x", "double", 0, 1), Parameter("epochs", "int", 1, 9)))
DEPTHS = (3, 2, 1)


def judged(loss: Callable[[float, int], float], total: int) -> tuple[list[float], list[float]]:
    """Return the x of the second cycle's widest rung in the order of the judge, and in that of the losses."""
    trials: list[Trial] = []
    issued = ""
    for _ in range(total):
        history = History(tuple(trials), issued, "minimize", "e")
        suggestion = load_suggester("hyperband").suggest(SPACE, {"resource_name": "epochs"}, 0, history, 1)
        issued, (proposal,) = suggestion.settings["issued"], suggestion.proposals
        value = loss(float(proposal.assignments["x"]), int(proposal.assignments["epochs"]))
        trials.append(Trial(proposal.name, proposal.assignments, Status.SUCCEEDED, value))
    state = ExperimentState(History(tuple(trials), issued, "minimize", "e"), DEPTHS)
    judge = Judge(SPACE.without("epochs"), state, collect(state, DEPTHS), DEPTHS, lambda: np.random.default_rng(0))
    rung = state.rungs[-1][0]
    x = np.array([float(values["x"]) for values in state.assignments[-1] if values])
    scores = judge(len(state.rungs) - 1, 0, rung.configs, rung.losses)
    return x[np.argsort(scores)].tolist(), x[np.argsort(rung.losses)].tolist()


def test_where_curves_cross_those_are_promoted_that_end_best() -> None:
    ordered, by_loss = judged(lambda x, epochs: x if epochs == 9 else -x, 31)  # noqa: PLR2004
    assert by_loss == sorted(by_loss, reverse=True)
    assert np.mean(ordered[:3]) < 0.5 * np.mean(ordered)


def test_where_low_rungs_tell_the_end_the_losses_decide() -> None:
    ordered, by_loss = judged(lambda x, epochs: (x - 0.4) ** 2 + 0.1 / epochs, 31)
    assert set(ordered[:3]) <= set(by_loss[:4])


def test_losses_decide_while_too_few_trials_had_the_full_resource() -> None:
    ordered, by_loss = judged(lambda x, epochs: x if epochs == 9 else -x, 9)  # noqa: PLR2004
    assert ordered == pytest.approx(by_loss)
