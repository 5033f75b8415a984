"""What suggesters learn from a trial that was stopped early: it is worse than whole ones, and its value counts."""

import dataclasses
import math

import grpc
import numpy as np
import pytest
from kondense.katib.api import messages
from kondense.search.definition import Search, TrialRecord
from kondense.search.history import History, Status, Trial
from kondense.search.ledger import SETTING
from kondense.search.run import Run
from kondense.search.space import SearchSpace
from kondense.search.state import FAILED, ExperimentState
from kondense.search.suggesters import load_suggester

from tests.unit.suggestion.test_service import experiment, suggest

SPACE = SearchSpace.from_katib(
    [
        {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}},
        {"name": "y", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}},
        {"name": "units", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "9"}},
    ]
)
HALVING = {"resource_name": "units", "r_l": "9", "eta": "3"}
SETTINGS = {
    "tpe": {"random_fraction": "0"},
    "multivariate-tpe": {},
    "bayesianoptimization": {"acq_func": "EI"},
    "cmaes": {},
    "pbt": {"suggestion_trial_dir": "/f", "n_population": "8", "truncation_threshold": "0.4"},
    "hyperband": HALVING,
    "bohb": HALVING,
}
LEARNERS = ("tpe", "multivariate-tpe", "bayesianoptimization", "cmaes", "pbt")  # with these early stopping is allowed
COUNT = 24
STOPPED = (1, 4, 6)  # trials; of a bracket, a generation or all
WORST = 1e6


def value(trial):
    return (float(trial.assignments["x"]) - 0.3) ** 2 + (float(trial.assignments["y"]) - 0.6) ** 2


def first(algorithm):
    """Return COUNT whole trials, asked for in one request, and the ledger."""
    reply = load_suggester(algorithm).suggest(SPACE, SETTINGS[algorithm], 5, History(), COUNT)
    trials = [Trial(each.name, each.assignments, Status.SUCCEEDED) for each in reply.proposals]
    return [dataclasses.replace(trial, value=value(trial)) for trial in trials], reply.settings[SETTING]


def then(algorithm, trials, issued, goal="minimize"):
    """Return the assignments of the next proposals."""
    history = History(tuple(trials), issued, goal)
    reply = load_suggester(algorithm).suggest(SPACE, {**SETTINGS[algorithm], SETTING: issued}, 5, history, 4)
    return [dict(each.assignments) for each in reply.proposals]


def changed(trials, status, values):
    """Return the trials with STOPPED of another status and with other values."""
    new = dict(zip(STOPPED, values, strict=True))
    return [
        dataclasses.replace(trial, status=status, value=new[number]) if number in new else trial
        for number, trial in enumerate(trials)
    ]


@pytest.mark.parametrize("algorithm", SETTINGS)
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_a_stopped_trial_counts_as_worse_than_all_whole_ones(algorithm, goal):
    """Its value looks better than theirs: that of one report, say, of which theirs became worse later."""
    sign = 1 if goal == "minimize" else -1
    trials, issued = first(algorithm)
    trials = [dataclasses.replace(trial, value=sign * trial.value) for trial in trials]
    values = [-sign * 3.0, -sign * 1.0, -sign * 2.0]
    found = then(algorithm, changed(trials, Status.EARLY_STOPPED, values), issued, goal)
    behind = [sign * WORST, sign * (WORST + 2), sign * (WORST + 1)]
    assert found == then(algorithm, changed(trials, Status.SUCCEEDED, behind), issued, goal)
    assert found != then(algorithm, changed(trials, Status.SUCCEEDED, values), issued, goal)


@pytest.mark.parametrize(("goal", "sign"), [("minimize", 1), ("maximize", -1)])
def test_with_the_largest_resource_its_value_counts_as_no_better_than_the_best(goal, sign):
    settings = {"resource_name": "units", "r_l": "9", "eta": "3", "random_fraction": "0"}
    suggest, trials, issued = load_suggester("bohb").suggest, [], ""
    while [trial.assignments["units"] for trial in trials].count("9") < 2:
        reply = suggest(SPACE, {**settings, SETTING: issued}, 5, History(tuple(trials), issued, goal), 1)
        issued, (each,) = reply.settings[SETTING], reply.proposals
        trial = Trial(each.name, each.assignments, Status.SUCCEEDED)
        trials.append(dataclasses.replace(trial, value=sign * value(trial)))

    def rungs(stopped, loss):
        """Return the losses of the lowest rung, and the two of the largest resource."""
        early = dataclasses.replace(trials[stopped], status=Status.EARLY_STOPPED, value=sign * loss)
        history = History(tuple([*trials[:stopped], early, *trials[stopped + 1 :]]), issued, goal)
        state = ExperimentState(history, rungs_per_bracket=(3, 2, 1))
        tops = [state.rung(bracket, top) for bracket, top in zip(range(len(state.rungs)), (2, 1, 0), strict=False)]
        return state.rung(0, 0).losses, tuple(loss for rung in tops for loss in rung.losses)

    first, second = (number for number, trial in enumerate(trials) if trial.assignments["units"] == "9")
    whole = value(trials[second])
    assert rungs(first, whole + 0.7)[1] == (whole + 0.7, whole)
    assert rungs(first, whole - 0.7)[1] == (whole, whole)
    lowest, _ = rungs(0, -1.0)
    assert lowest[0] > max(lowest[1:])  # where it would be promoted, it is behind all others


@pytest.mark.parametrize("algorithm", ["tpe", "multivariate-tpe", "bayesianoptimization", "cmaes"])
def test_a_stopped_trial_is_not_dropped(algorithm):
    trials, issued = first(algorithm)
    early = [
        dataclasses.replace(trial, status=Status.EARLY_STOPPED) if trial.value > 0.15 else trial for trial in trials
    ]
    reported = [trial for trial in early if trial.status is Status.SUCCEEDED]
    assert len(reported) > COUNT // 3
    assert then(algorithm, early, issued) != then(algorithm, reported, issued)


def test_their_own_order_teaches_too():
    """With most trials stopped, their values decide which configurations are good."""
    trials, issued = first("tpe")
    most = [
        trial if number < 2 else dataclasses.replace(trial, status=Status.EARLY_STOPPED)
        for number, trial in enumerate(trials)
    ]
    reverse = [
        trial if number < 2 else dataclasses.replace(trial, value=-trial.value) for number, trial in enumerate(most)
    ]
    assert then("tpe", most, issued) != then("tpe", reverse, issued)


def test_losses():
    trials, issued = first("tpe")
    trials = trials[:8]
    for number, new in {0: 0.5, 2: math.nan, 3: 0.25, 5: 0.5}.items():
        trials[number] = dataclasses.replace(trials[number], status=Status.EARLY_STOPPED, value=new)
    trials[6] = dataclasses.replace(trials[6], status=Status.FAILED, value=None)
    losses = np.array(ExperimentState(History(tuple(trials), issued)).rung(0, 0).losses)
    whole = [trials[number].value for number in (1, 4, 7)]
    assert losses[[1, 4, 7]].tolist() == whole
    assert max(whole) < losses[3] < losses[0] == losses[5] < FAILED
    assert losses[2] == losses[6] == FAILED and (losses[8:] == FAILED).all()  # not reported


@pytest.mark.parametrize("worst", [-1e308, -1.0, 0.0, 1e-9, 1.7e308])
def test_losses_of_any_size_stay_finite_and_behind(worst):
    trials, issued = first("tpe")
    trials = [dataclasses.replace(trial, value=worst) for trial in trials]
    trials = changed(trials, Status.EARLY_STOPPED, [0.0, 2.0, 1.0])
    losses = ExperimentState(History(tuple(trials), issued)).rung(0, 0).losses
    assert worst < losses[1] <= losses[6] <= losses[4] < math.inf


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_a_local_run_learns_the_same(algorithm):
    trials, issued = first(algorithm)
    trials = changed(trials, Status.EARLY_STOPPED, [-3.0, -1.0, -2.0])
    suggester, settings = load_suggester(algorithm), SETTINGS[algorithm]
    run = Run(Search("experiment", algorithm, suggester, SPACE, settings, seed=5))
    suggested = [{"name": trial.name, "assignments": trial.assignments} for trial in trials]
    run.record("suggested", trials=suggested, settings=run.settings_change({SETTING: issued}))
    for trial in trials:
        run.record("started", name=trial.name)
        run.record("finished", name=trial.name, status=trial.status.value, reason="", value=trial.value)
    assert [dict(trial.assignments) for trial in run.startable(4)] == then(algorithm, trials, issued)


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_the_service_learns_the_same(algorithm):
    """Katib's message of a trial stopped early, with the observation that SetTrialStatus wrote."""
    parameters = [{"name": name, "parameter_type": messages.DOUBLE, "min": "0", "max": "1"} for name in ("x", "y")] + [
        {"name": "units", "parameter_type": messages.INT, "min": "1", "max": "9"}
    ]
    trials, issued = first(algorithm)
    trials = changed(trials, Status.EARLY_STOPPED, [-3.0, -1.0, -2.0])
    sent = []
    for trial in trials:
        made = messages.Trial(name=trial.name)
        made.status.condition = messages.TrialStatus.TrialConditionType.Value(trial.status.name.replace("_", ""))
        made.status.observation.metrics.add(name="loss", value=repr(trial.value))
        for name, text in trial.assignments.items():
            made.spec.parameter_assignments.assignments.add(name=name, value=text)
        sent.append(made)
    settings = {**SETTINGS[algorithm], SETTING: issued, "random_state": "5"}
    if algorithm == "pbt":
        settings["suggestion_trial_dir"] = "/opt/katib/data"
    stopping = experiment(algorithm, parameters, settings, early_stopping="medianstop", parallel_trial_count=4)
    stopping.name = "experiment"
    reply, code, details = suggest(stopping, 4, sent)
    assert code is grpc.StatusCode.OK, details
    there = [{each.name: each.value for each in entry.assignments} for entry in reply.parameter_assignments]
    assert there == then(algorithm, trials, issued)


def test_the_best_trial_is_one_that_ran_whole():
    search = Search("e", "tpe", load_suggester("tpe"), SPACE)
    whole = TrialRecord("whole", {}, Status.SUCCEEDED, value=0.5)
    stopped = [TrialRecord(str(value), {}, Status.EARLY_STOPPED, value=value) for value in (0.4, 0.1)]
    assert search.best([stopped[0], whole, stopped[1]]) is whole
    assert search.best(stopped) is stopped[1]
