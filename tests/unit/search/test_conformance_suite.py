"""A suggester of somebody else's conforms, and each broken rule is named."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from kondense.errors import InputError
from kondense.search.history import Proposal, Suggestion
from kondense.search.sampling import draw_random, generator
from kondense.search.settings import check
from kondense.search.state import ExperimentState
from kondense.testing import check_suggester


class Own:
    """Draws configurations by number alone."""

    METHOD = {"name": "own", "kind": "single-fidelity", "summary": "by number"}

    def validate(self, space, settings, *, max_trial_count=None, parallel_trial_count=None) -> None:
        check(settings, (), max_trial_count, parallel_trial_count)

    def planned_trials(self, settings, space) -> int | None:
        return None

    def suggest(self, space, settings, seed, history, count) -> Suggestion:
        state = ExperimentState(history)
        return state.issue(count, lambda number: draw_random(space, generator(0, "own", 0, number), state.ledger.known))


def altered(change: Callable[[Suggestion, Any], Suggestion]) -> type[Own]:
    """Return a suggester whose replies are changed."""

    class Altered(Own):
        def suggest(self, space, settings, seed, history, count) -> Suggestion:
            return change(super().suggest(space, settings, seed, history, count), history)

    return Altered


def with_proposals(suggestion: Suggestion, change: Callable[[Proposal], Proposal]) -> Suggestion:
    return dataclasses.replace(suggestion, proposals=tuple(map(change, suggestion.proposals)))


class Careless(Own):
    def validate(self, space, settings, **counts) -> None:
        pass


class Endless(Own):
    def planned_trials(self, settings, space) -> int:
        return 0


class Nameless(Own):
    METHOD = {"kind": "single-fidelity", "summary": ""}


counter = itertools.count()
BROKEN = {
    "accepted no_such_setting": Careless,
    "planned_trials must be None or at least 1": Endless,
    "METHOD must have name, kind and summary, but lacks name": Nameless,
    "must return exactly 1 proposals, but returned 0": altered(lambda s, _: dataclasses.replace(s, proposals=())),
    "must be a function of its arguments": altered(
        lambda s, _: dataclasses.replace(s, settings=s.settings | {"n": str(next(counter))})
    ),
    "must be issued by ExperimentState": altered(
        lambda s, h: with_proposals(s, lambda p: dataclasses.replace(p, name=f"own-{len(h.trials)}-{p.name[-6:]}"))
    ),
    "must assign every parameter": altered(
        lambda s, _: with_proposals(s, lambda p: dataclasses.replace(p, assignments={"lr": "0.01"}))
    ),
    "must not repeat": altered(
        lambda s, _: with_proposals(s, lambda p: dataclasses.replace(p, assignments={**FIXED})),
    ),
}
FIXED = {"lr": "0.01", "width": "8", "optimizer": "sgd", "epochs": "1"}


def test_it_conforms() -> None:
    check_suggester(Own())


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named(rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_suggester(BROKEN[rule]())


def test_a_value_outside_of_the_space_is_named() -> None:
    outside = altered(
        lambda s, _: with_proposals(s, lambda p: dataclasses.replace(p, assignments={**FIXED, "optimizer": "x"}))
    )
    with pytest.raises(InputError, match="must be one of sgd, adam, lion, but got 'x'"):
        check_suggester(outside())
