"""Configurations to start from."""

import pytest
from kondense.search.history import History, Status, Trial
from kondense.search.ledger import SETTING
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import load_suggester

SPACE = SearchSpace(
    (
        Parameter("lr", "double", 1e-4, 0.1, distribution="logUniform"),
        Parameter("optimizer", "categorical", values=("sgd", "adam")),
        Parameter("epochs", "int", 1, 9),
    )
)
BANDS = {"resource_name": "epochs", "r_l": "9"}
START = "lr=0.01,optimizer=adam; lr=0.05,optimizer=sgd"


@pytest.mark.parametrize("algorithm", ["hyperband", "bohb"])
def test_they_are_first_in_the_bracket_of_the_whole_resource_and_come_once(algorithm: str) -> None:
    suggester, issued = load_suggester(algorithm), ""
    trials: list[Trial] = []
    settings = BANDS | {"start": START}
    for _ in range(60):
        made = suggester.suggest(SPACE, settings, 0, History(tuple(trials), issued), 1)
        issued = made.settings[SETTING]
        (proposal,) = made.proposals
        trials.append(Trial(proposal.name, proposal.assignments, Status.SUCCEEDED, float(len(trials) % 7)))
    found = [trial.assignments for trial in trials if trial.assignments["lr"] in ("0.01", "0.05")]
    assert [tuple(each.values()) for each in found] == [("0.01", "adam", "9"), ("0.05", "sgd", "9")]


@pytest.mark.parametrize(
    ("start", "rule"),
    [
        ("lr=0.01", "must be name=value for each of lr, optimizer, but got 'lr=0.01'"),
        ("lr=0.01,optimizer=lion", "optimizer must be one of sgd, adam, but got 'lion'"),
        ("lr=1,optimizer=sgd", r"lr must be in \[0.0001, 0.1\], but got 1"),
        ("lr=x,optimizer=sgd", "must be a finite number, but got 'x'"),
        (";".join(["lr=0.01,optimizer=sgd"] * 9), "must list at most . configurations, but got 9"),
    ],
)
def test_what_lies_outside_the_space_is_refused(start: str, rule: str) -> None:
    for algorithm in ("hyperband", "bohb"):
        with pytest.raises(ValueError, match=rule):
            load_suggester(algorithm).validate(SPACE, BANDS | {"start": start})
