"""The outcome and the best of a run, from its events."""

import dataclasses
from types import SimpleNamespace

import pytest
from kondense.errors import InputError
from kondense.search.history import Status
from kondense.search.run import Outcome, Run
from kondense.search.space import Parameter, SearchSpace

from tests.support.search_example import SPACE
from tests.support.search_example import make_run as state


def test_a_run_ends_at_its_trial_count():
    assert state(*[("succeeded", 0.5)] * 5).outcome() == (Outcome.RUNNING, "")
    assert state(*[("succeeded", 0.5)] * 6).outcome() == (Outcome.SUCCEEDED, "all 6 trials have ended")
    assert state(*[("killed", None)] * 6).outcome()[0] is Outcome.SUCCEEDED


def test_failures_and_trials_without_metrics_count_together():
    failures = [("failed", None), ("metrics_unavailable", None)]
    assert state(*failures, max_failed=3).outcome()[0] is Outcome.RUNNING
    outcome, reason = state(*failures, ("failed", None), max_failed=3).outcome()
    assert outcome is Outcome.FAILED
    assert reason == "3 trial(s) failed, which reaches the limit of 3"
    assert state(("succeeded", 1), max_failed=0).outcome()[0] is Outcome.RUNNING
    assert state(("failed", None), max_failed=0).outcome()[0] is Outcome.FAILED


@pytest.mark.parametrize(
    ("direction", "value", "reached"),
    [("minimize", 0.1, True), ("minimize", 0.3, False), ("maximize", 0.3, True), ("maximize", 0.1, False)],
)
def test_the_goal_ends_the_run(direction, value, reached):
    run = state(("succeeded", float(value)), goal=direction, target=0.2)
    assert (run.outcome()[0] is Outcome.SUCCEEDED) is reached


def test_the_best_value_wins_and_the_earliest_of_equals():
    run = state(("succeeded", 0.5), ("succeeded", 0.2), ("succeeded", 0.2), ("failed", 0.0))
    assert run.best().name == "t1"
    run = state(("succeeded", 0.5), ("succeeded", 0.2), goal="maximize")
    assert run.best().name == "t0"


def test_the_largest_resource_wins_over_a_better_value():
    run = state(("succeeded", 0.1, 3), ("succeeded", 0.4, 9), ("succeeded", 0.3, 9), resource_name="epochs")
    assert run.best().name == "t2"
    assert run.search.best(run.finished[:1]).name == "t0"


def test_the_history_is_what_katib_would_send():
    run = state(("succeeded", 0.5), ("metrics_unavailable", None))
    run.apply({"event": "suggested", "trials": [{"name": "x", "assignments": {}, "labels": {}}], "settings": {}})
    history = run.history()
    statuses = [(trial.status, trial.value) for trial in history.trials]
    assert statuses == [(Status.SUCCEEDED, 0.5), (Status.CREATED, None)]
    assert (history.goal, history.experiment) == ("minimize", "example")


def test_settings_are_kept_by_what_changes_in_them():
    run = state()
    values = ["AAAA", "AAAABBBB", "AAAABBBB/1;CC", "AAAABBBB/1,2;CCDD", "", "x"]
    for value in values:
        change = run.settings_change({"issued": value})
        run.apply({"event": "suggested", "trials": [], "settings": change})
        assert run.settings["issued"] == value
    assert run.settings["random_state"] == "3"
    assert run.settings_change({"issued": "x"}) == {}


KIND = Parameter("optimizer", "categorical", values=("sgd", "adam"))
SEARCH = dataclasses.replace(state().search, space=SearchSpace((*SPACE.parameters, KIND)))


@pytest.mark.parametrize(
    ("name", "assignments", "rule"),
    [
        ("../../evil", {}, "a trial's name must match"),
        ("/tmp/evil", {}, "a trial's name must match"),
        ("t\0", {}, "a trial's name must match"),
        ("t0", {"lr": "0.1; touch evil"}, "a value must be a finite number"),
        ("t0", {"lr": "0.1\n"}, "a value must be"),
        ("t0", {"optimizer": "$(touch evil)"}, "a value must be one of "),
        ("t0", {"other": "1"}, "no parameter is called 'other'"),
        ("t0", {"lr": 0.1}, "AttributeError"),
    ],
)
@pytest.mark.parametrize("event", ["suggested", "baseline"])
def test_a_journal_that_would_lead_elsewhere_is_refused(event, name, assignments, rule):
    trial = {"name": name, "assignments": assignments}
    written = {"event": event, "trials": [trial], "settings": {}} if event == "suggested" else {"event": event, **trial}
    with pytest.raises(InputError, match=rule):
        Run(SEARCH, SimpleNamespace(events=[written]))


def test_a_journal_s_trials_of_the_space_are_taken():
    trial = {"name": "t0", "assignments": {"lr": "1e-3", "optimizer": "sgd"}}
    run = Run(SEARCH, SimpleNamespace(events=[{"event": "suggested", "trials": [trial], "settings": {}}]))
    assert list(run.trials) == ["t0"]
