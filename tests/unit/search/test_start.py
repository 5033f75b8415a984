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
        ("lr=0.01,lr=0.02,optimizer=sgd", "must be name=value for each of lr, optimizer"),
        ("lr=0.01,optimizer=sgd;lr=0.010,optimizer=sgd", "must list a configuration once"),
        (";".join(["lr=0.01,optimizer=sgd"] * 9), "must list at most . configurations, but got 9"),
    ],
)
def test_what_lies_outside_the_space_is_refused(start: str, rule: str) -> None:
    for algorithm in ("hyperband", "bohb"):
        with pytest.raises(ValueError, match=rule):
            load_suggester(algorithm).validate(SPACE, BANDS | {"start": start})


def test_zero_with_a_sign_is_zero() -> None:
    space = SearchSpace((Parameter("shift", "double", -1, 1), Parameter("epochs", "int", 1, 9)))
    with pytest.raises(ValueError, match="must list a configuration once"):
        load_suggester("hyperband").validate(space, BANDS | {"start": "shift=0.0;shift=-0.0"})


GRID = SearchSpace(
    (
        Parameter("bits", "int", 2, 8, 2),
        Parameter("sparsity", "double", 0, 1, 0.25),
        Parameter("batch", "discrete", values=("16", "32")),
        Parameter("images", "int", 1, 9),
    )
)


@pytest.mark.parametrize("algorithm", ["hyperband", "bohb"])
@pytest.mark.parametrize(
    ("start", "rule"),
    [
        ("bits=2.5,sparsity=0.5,batch=16", "bits must be a whole number, without a point, but got 2.5"),
        ("bits=4.0,sparsity=0.5,batch=16", "bits must be a whole number, without a point, but got 4.0"),
        ("bits=4e0,sparsity=0.5,batch=16", "bits must be a whole number, without a point, but got 4e0"),
        ("bits=4,sparsity=0.5,batch=16;bits=04,sparsity=0.50,batch=16.0", "must list a configuration once"),
        ("bits=3,sparsity=0.5,batch=16", "bits must be 2 plus steps of 2, but got 3"),
        ("bits=4,sparsity=0.3,batch=16", "sparsity must be 0 plus steps of 0.25, but got 0.3"),
        ("bits=4,sparsity=0.5,batch=24", "batch must be one of 16, 32, but got '24'"),
    ],
)
def test_a_value_off_the_grid_is_refused(algorithm: str, start: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        load_suggester(algorithm).validate(GRID, {"resource_name": "images", "start": start})


@pytest.mark.parametrize("algorithm", ["hyperband", "bohb"])
@pytest.mark.parametrize("bits", ["2", "+8"])
def test_no_earlier_bracket_takes_it(algorithm: str, bits: str) -> None:
    """Even where it is the worst at little resource, and however it is spelled."""
    suggester, issued = load_suggester(algorithm), ""
    space = SearchSpace((GRID["bits"], GRID["sparsity"], GRID["images"]))
    settings = {"resource_name": "images", "start": f"bits={bits},sparsity=0.50"}
    start = {"bits": bits[-1], "sparsity": "0.5"}
    trials: list[Trial] = []
    for number in range(suggester.planned_trials(settings, space)):
        made = suggester.suggest(space, settings, 0, History(tuple(trials), issued), 1)
        issued = made.settings[SETTING]
        (proposal,) = made.proposals
        value = 99.0 if start.items() <= proposal.assignments.items() else float(number % 7)
        trials.append(Trial(proposal.name, proposal.assignments, Status.SUCCEEDED, value))
    assert [each.assignments["images"] for each in trials if start.items() <= each.assignments.items()] == ["9"]
