"""Several objectives and constraints: what counts as better, and the rules of their settings."""

import numpy as np
import pytest
from kondense.search.goals import Constraint, Goals, Objective, check_reported, read_goals
from kondense.search.history import Status, Trial
from kondense.search.ledger import identity
from kondense.search.run import Search, TrialRecord
from kondense.search.space import Parameter, SearchSpace
from kondense.search.suggesters import SUGGESTERS, load_suggester
from kondense.testing.suggesters import run_experiment

NAN = float("nan")
TWO = Goals((Objective("accuracy", "maximize"), Objective("size")))
BOUNDED = Goals(TWO.objectives, (Constraint("size", "<=", 10), Constraint("latency", "<=", 5)))
SPACE = SearchSpace((Parameter("x", "double", 0, 1), Parameter("y", "double", 0, 1), Parameter("epochs", "int", 1, 9)))


def places(goals, *trials):
    names = ("accuracy", "size", "latency")
    rows = [goals.row({n: v for n, v in zip(names, t, strict=False) if not np.isnan(v)}) for t in trials]
    return goals.losses(np.array(rows)).tolist()


def test_nan_in_one_objective_drives_no_design_out_of_the_front():
    """pymoo, moocore, paretoset and deap lose real designs to it."""
    found = places(TWO, (0.9, 5), (0.99, NAN), (0.8, 3), (NAN, 1), (0.7, 4))
    assert found[1] == found[3] == float("inf")
    assert {found[0], found[2]} == {0, 1}
    assert found[4] == 2


def test_a_trial_without_the_value_of_a_constraint_is_not_feasible():
    """Optuna 5 counts it as feasible."""
    assert places(BOUNDED, (0.9, 5, NAN), (0.5, 9, 4), (0.6, 30, 9)) == [2, 0, 1]
    assert not BOUNDED.feasible({"size": 3.0})
    assert BOUNDED.feasible({"size": 10.0, "latency": 5.0})


def test_a_bound_on_one_objective_leaves_the_front():
    """Ax 1.3 empties it."""
    assert places(BOUNDED, (0.9, 9, 1), (0.8, 5, 1), (0.95, 11, 1), (0.7, 7, 1)) in ([0, 1, 3, 2], [1, 0, 3, 2])


def test_without_a_feasible_trial_the_least_infeasible_is_first():
    assert places(BOUNDED, (0.9, 12, 5), (0.99, 11, 5), (0.99, 20, 9)) == [1, 0, 2]


def search(algorithm="hyperband", **settings):
    bands = {"resource_name": "epochs"} if algorithm in ("hyperband", "bohb") else {}
    return Search(
        "example", algorithm, load_suggester(algorithm), SPACE, bands | settings, metric="accuracy", goal="maximize"
    )


def record(name, epochs, value=None, **metrics):
    status = Status.SUCCEEDED if value is not None else Status.FAILED
    texts = {key: str(number) for key, number in metrics.items()}
    return TrialRecord(name, {"x": "0.5", "y": "0.5", "epochs": str(epochs)}, status, value=value, metrics=texts)


def test_the_front_is_of_the_largest_resource_and_feasible():
    trials = [
        record("low", 3, 0.99, size=1),
        record("small", 9, 0.80, size=4),
        record("good", 9, 0.90, size=8),
        record("beaten", 9, 0.79, size=8),
        record("large", 9, 0.95, size=20),
        record("silent", 9, 0.97, size="nan"),
        record("broken", 9),
    ]
    names = [trial.name for trial in search(objectives="minimize size").front(trials)]
    assert names == ["large", "good", "small"]
    bounded = search(objectives="minimize size", constraints="size <= 10")
    assert [trial.name for trial in bounded.front(trials)] == ["good", "small"]
    assert bounded.best(trials).name == "good"
    hopeless = search(constraints="size <= 1")
    assert [trial.name for trial in hopeless.front(trials)] == ["small"]
    assert not hopeless.feasible(hopeless.best(trials))
    assert [trial.name for trial in search().front(trials)] == ["silent"]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"objectives": "minimize accuracy"}, "must name each metric once, but 'accuracy' is the Experiment's own"),
        ({"objectives": "minimize size, maximize size"}, "must name each metric once, but 'size' is named already"),
        ({"objectives": "size"}, "must be minimize METRIC or maximize METRIC, joined by commas, but got 'size'"),
        ({"objectives": "minimize size,"}, "but got ''"),
        ({"constraints": "size < 5"}, "must be METRIC <= NUMBER or METRIC >= NUMBER, joined by commas, but got"),
        ({"constraints": "size <= many"}, "but got 'size <= many'"),
        ({"constraints": "size <= nan"}, "but got 'size <= nan'"),
        ({"constraints": "size <= 5, size <= 6"}, "must bound a metric once from each side, but got size <= 6 again"),
    ],
)
def test_a_broken_setting_is_refused_before_any_trial(settings, rule):
    with pytest.raises(ValueError, match=rule) as error:
        read_goals(settings, "accuracy", "maximize")
    assert "\n" not in str(error.value)
    if "accuracy" not in rule:
        with pytest.raises(ValueError, match=rule):
            search(**settings).validate()


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"objectives": "minimize size"}, "objectives"), ({"constraints": "size <= 5"}, "constraints")],
)
def test_a_metric_that_no_trial_reports_is_refused(settings, name):
    goals = read_goals(settings, "accuracy", "maximize")
    with pytest.raises(ValueError, match=rf"setting {name} must name metrics .*\(accuracy, loss\), but got 'size'"):
        check_reported(goals, ["accuracy", "loss"])
    check_reported(goals, ["accuracy", "size"])


@pytest.mark.parametrize("algorithm", sorted(set(SUGGESTERS) - {"random", "grid", "sobol", "tpe", "hyperband", "bohb"}))
def test_an_algorithm_of_one_objective_says_so(algorithm):
    with pytest.raises(ValueError, match="setting objectives must be absent: this algorithm has one objective"):
        load_suggester(algorithm).validate(SPACE, {"objectives": "minimize size"})


def goals_run(algorithm, settings, total=60):
    """Return the trials of a search for small x + y (value) and small 1 - x + y (size), with y at least 0.3."""
    goals = {"objectives": "minimize size", "constraints": "share >= 0.3"}

    def result(proposal, rng):
        x, y = float(proposal.assignments["x"]), float(proposal.assignments["y"])
        return Status.SUCCEEDED, x + y, {"size": 1 - x + y, "share": y}

    bands = {"resource_name": "epochs"} if algorithm in ("hyperband", "bohb") else {}
    space = SPACE if bands else SPACE.without("epochs")
    chosen = load_suggester(algorithm)
    return run_experiment(chosen, space, bands | goals | settings, parallel=2, total=total, result=result)


def test_halving_promotes_the_front_of_a_rung():
    """Not one that another trial of its rung dominates (syne-tune 0.16 promotes by the wrong index)."""
    trials = goals_run("hyperband", {}, total=22)
    rungs: dict[tuple[int, int], dict[int, Trial]] = {}
    for trial in trials:
        issued = identity(trial.name)
        rungs.setdefault((issued.bracket, issued.rung), {})[issued.config] = trial
    members, promoted = rungs[0, 0], rungs[0, 1]
    feasible = {c for c, trial in members.items() if trial.metrics["share"] >= 0.3}
    assert len(feasible) > len(promoted) == 3

    def beaten(config):
        mine = (members[config].value, members[config].metrics["size"])
        others = [(members[c].value, members[c].metrics["size"]) for c in feasible]
        return any(a <= mine[0] and b <= mine[1] and (a, b) != mine for a, b in others)

    assert set(promoted) <= feasible
    front = {config for config in feasible if not beaten(config)}
    assert set(promoted) <= front if len(front) >= 3 else front < set(promoted)


@pytest.mark.parametrize(("algorithm", "settings"), [("tpe", {}), ("bohb", {}), ("bohb", {"model": "density"})])
def test_models_find_the_front_that_the_constraint_leaves(algorithm, settings):
    """Random y are on average 0.35 from 0.3, and 3 of 10 break the bound."""
    late = goals_run(algorithm, settings)[-20:]
    ys = np.array([float(trial.assignments["y"]) for trial in late])
    assert np.median(np.abs(ys - 0.3)) < 0.15
    xs = [float(trial.assignments["x"]) for trial in late]
    assert np.ptp(xs) > 0.5  # along the whole front, not at one end
