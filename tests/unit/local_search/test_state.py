"""The outcome and the best of a run, from its events."""

import pytest
from kondense.katib.spec import parse
from kondense.search.history import Status
from kondense_pipelines.local_search import results
from kondense_pipelines.local_search.state import Outcome, State

from tests.support.experiment_example import experiment


def state(*finished, objective=None, settings=None, **spec) -> State:
    """Return a run whose trials ended as (status, value) or (status, value, epochs)."""
    document = experiment()
    document["spec"].update(spec)
    document["spec"]["objective"].update(objective or {})
    run = State(parse(document))
    if settings:
        run.resource_name = settings
    for index, (status, value, *epochs) in enumerate(finished):
        name, assignments = f"t{index}", {"lr": "0.5", "epochs": str(epochs[0]) if epochs else "1"}
        suggested = [{"name": name, "assignments": assignments, "labels": {}}]
        run.apply({"event": "suggested", "trials": suggested, "settings": {}})
        run.apply({"event": "started", "name": name, "time": 10.0})
        metrics = {"loss": {"min": value, "max": value, "latest": value}} if value is not None else {}
        event = {"event": "finished", "name": name, "status": status, "reason": "", "metrics": metrics, "time": 12.5}
        run.apply(event)
    return run


def test_a_run_ends_at_its_trial_count():
    assert state(*[("succeeded", "0.5")] * 5).outcome() == (Outcome.RUNNING, "")
    assert state(*[("succeeded", "0.5")] * 6).outcome() == (Outcome.SUCCEEDED, "maxTrialCount=6 is reached")
    assert state(*[("killed", None)] * 6).outcome()[0] is Outcome.SUCCEEDED


def test_failures_and_trials_without_metrics_count_together():
    failures = [("failed", None), ("metrics_unavailable", None)]
    assert state(*failures, maxFailedTrialCount=3).outcome()[0] is Outcome.RUNNING
    outcome, reason = state(*failures, ("failed", None), maxFailedTrialCount=3).outcome()
    assert outcome is Outcome.FAILED
    assert reason == "maxFailedTrialCount=3 is reached: 3 trial(s) failed"
    assert state(("succeeded", "1"), maxFailedTrialCount=0).outcome()[0] is Outcome.RUNNING
    assert state(("failed", None), maxFailedTrialCount=0).outcome()[0] is Outcome.FAILED


@pytest.mark.parametrize(
    ("direction", "value", "reached"),
    [("minimize", "0.1", True), ("minimize", "0.3", False), ("maximize", "0.3", True), ("maximize", "0.1", False)],
)
def test_the_goal_ends_the_run(direction, value, reached):
    run = state(("succeeded", value), objective={"type": direction, "goal": 0.2})
    assert (run.outcome()[0] is Outcome.SUCCEEDED) is reached


def test_the_best_value_wins_and_the_earliest_of_equals():
    run = state(("succeeded", "0.5"), ("succeeded", "0.2"), ("succeeded", "0.2"), ("failed", "0.0"))
    assert run.best().name == "t1"
    run = state(("succeeded", "0.5"), ("succeeded", "0.2"), objective={"type": "maximize"})
    assert run.best().name == "t0"


@pytest.mark.parametrize("value", ["", "nan", "inf", "unavailable", None])
def test_a_value_that_is_no_finite_number_never_is_the_best(value):
    run = state(("succeeded", "0.5"), ("succeeded", value))
    assert run.best().name == "t0"
    assert "no finite number" in run.trials["t1"].reason


def test_the_largest_resource_wins_over_a_better_value():
    run = state(("succeeded", "0.1", 3), ("succeeded", "0.4", 9), ("succeeded", "0.3", 9), settings="epochs")
    assert run.best().name == "t2"
    assert run.optimum() == 0.1


def test_the_history_is_what_katib_would_send():
    run = state(("succeeded", "0.5"), ("metrics_unavailable", None))
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


def test_the_summary_follows_the_incumbent():
    run = state(("succeeded", "0.5"), ("failed", None), ("succeeded", "0.2"), ("succeeded", "0.4"))
    summary = results.summary(run, Outcome.RUNNING, "")
    assert [entry["incumbent"] for entry in summary["finished"]] == ["t0", "t0", "t2", "t2"]
    assert [entry["spent"] for entry in summary["finished"]] == [1, 2, 3, 4]
    assert summary["best"]["name"] == "t2"
    assert summary["trials"][0]["seconds"] == 2.5
