"""What is read from Katib's objects, and which trial is the best."""

import json
import math

import pytest
from kondense.cluster.errors import ClusterError
from kondense.katib import page
from kondense.katib.results import summary
from kondense.katib_search.config import KatibSearchConfig
from kondense.katib_search.experiment import Plan, build_plan
from kondense.katib_search.trials import best_trial, ended, in_order_of_ending, read_trial, read_trials
from kondense.search.history import Status
from kondense.search.run import TrialRecord

from tests.support.fake_kubernetes import make_trial

NAME = "kondense-bohb-1234"


@pytest.fixture
def plan(bohb: str) -> Plan:
    return build_plan(KatibSearchConfig(experiment=bohb, run_id="1234"), dataset_uri="d", environment={})


def view(plan: Plan, name: str, epochs: int, value: str | None, condition: str = "Succeeded", **more) -> TrialRecord:
    return read_trial(made(name, epochs, value, condition, **more), plan)


def made(name: str, epochs: int, value: str | None, condition: str = "Succeeded", **more):
    metrics = {"validation_accuracy": value, "latency_ms": "0.1"} if value is not None else {}
    return make_trial(NAME, name, {"lr": "0.1", "epochs": str(epochs)}, condition, metrics, **more)


def test_only_trials_at_the_maximum_resource_compete(plan: Plan) -> None:
    trials = [view(plan, "low", 3, "0.99"), view(plan, "a", 9, "0.90"), view(plan, "b", 9, "0.93")]
    assert best_trial(trials, plan.search).name == "b"
    assert best_trial(trials[:1], plan.search) is None
    assert plan.search.best(trials[:1]).name == "low"


def test_the_first_of_equals_wins_in_any_order(plan: Plan) -> None:
    trials = [made("z", 9, "0.9", at=1e9), made("a", 9, "0.9", at=2e9)]
    for objects in (trials, trials[::-1]):
        assert best_trial(read_trials(objects, plan), plan.search).name == "z"


@pytest.mark.parametrize("value", ["", "nan", "inf", "-inf", "unavailable", None])
def test_what_is_no_finite_number_never_counts(plan: Plan, value: str | None) -> None:
    trial = view(plan, "a", 9, value)
    assert trial.value is None
    assert best_trial([trial, view(plan, "b", 9, "0.1")], plan.search).name == "b"


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("Created", Status.CREATED),
        ("Running", Status.RUNNING),
        ("Succeeded", Status.SUCCEEDED),
        ("Failed", Status.FAILED),
        ("Killed", Status.KILLED),
        ("EarlyStopped", Status.EARLY_STOPPED),
        ("MetricsUnavailable", Status.METRICS_UNAVAILABLE),
    ],
)
def test_conditions(plan: Plan, condition: str, status: Status) -> None:
    trial = view(plan, "a", 9, "0.5", condition)
    assert trial.status is status
    assert (trial.value is not None) == (condition in ("Succeeded", "EarlyStopped"))
    assert trial.finished == (condition not in ("Created", "Running"))
    assert trial.seconds == (30.0 if trial.finished else None)


def test_minimizing(bohb: str) -> None:
    text = bohb.replace("type: maximize", "type: minimize")
    plan = build_plan(KatibSearchConfig(experiment=text, run_id="1"), dataset_uri="d", environment={})
    assert best_trial([view(plan, "a", 9, "0.2"), view(plan, "b", 9, "0.1")], plan.search).name == "b"


def test_the_metrics_strategy_picks_the_value(plan: Plan) -> None:
    trial = make_trial(NAME, "a", {"epochs": "9"}, metrics={"validation_accuracy": "0.5"})
    trial["status"]["observation"]["metrics"][0] |= {"max": "0.9", "min": "0.1"}
    assert read_trial(trial, plan).value == 0.5  # the file says: latest
    for strategy in plan.spec["objective"]["metricStrategies"]:
        strategy["value"] = "max"
    assert read_trial(trial, plan).value == 0.9


def test_lines_for_the_log(plan: Plan) -> None:
    trials = [
        view(plan, "a", 3, "0.5"),
        view(plan, "b", 1, None, "Failed", message="OOM"),
        view(plan, "c", 9, None, "Running"),
    ]
    assert plan.search.headline(trials) == (
        "kondense-bohb-1234 (bohb): 2/80 trials, 1 running, 1 failed, best validation_accuracy=0.5 at 3 epochs"
    )
    assert plan.search.trial_line(trials[0]) == "a succeeded validation_accuracy=0.5 at 3 epochs in 30.0 s"
    assert plan.search.trial_line(trials[1]) == "b failed in 30.0 s (OOM)"


def test_the_end_of_an_experiment() -> None:
    assert ended({}) is None
    running = [{"type": "Running", "status": "True"}, {"type": "Failed", "status": "False"}]
    assert ended({"status": {"conditions": running}}) is None
    done = [*running, {"type": "Succeeded", "status": "True", "reason": "ExperimentGoalReached"}]
    assert ended({"status": {"conditions": done}}) == ("Succeeded", "ExperimentGoalReached")


def summarized(trials: list[TrialRecord], plan: Plan):
    best, finished = plan.search.best(trials), in_order_of_ending(trials)
    return summary(plan.body, plan.search, trials, outcome="Succeeded", reason="done", best=best, finished=finished)


def test_the_summary_is_what_the_page_shows(plan: Plan) -> None:
    trials = [
        view(plan, f"{NAME}-b0r0c0-abcdef", 1, "0.5", at=1e9),
        view(plan, f"{NAME}-b0r1c0-abcdef", 9, "0.4", at=2e9),
        view(plan, f"{NAME}-b0r0c1-abcdef", 1, None, "Failed", message="</script>"),
    ]
    found = summarized(trials, plan)
    assert found["best"]["name"] == f"{NAME}-b0r1c0-abcdef"
    assert found["best"]["at_maximum_resource"]
    assert sorted(each["rung"] for each in found["trials"]) == [0, 0, 1]
    spent = [each["spent"] for each in found["finished"]]
    assert spent == sorted(spent) and spent[-1] == 11.0
    assert all(math.isfinite(each) for each in spent)
    text = page.render(json.loads(json.dumps(found, allow_nan=False)))
    assert "&lt;/script&gt;" in text and "kondense-bohb-1234" in text


@pytest.mark.parametrize(
    "change", [{"status": "x"}, {"status": {"conditions": [3]}}, {"metadata": {}}, {"status": {"startTime": "soon"}}]
)
def test_an_object_of_another_form_is_one_line(plan: Plan, change: dict) -> None:
    with pytest.raises(
        ClusterError, match=r"Katib's Trial must have the form of kubeflow.org/v1beta1, but \{.*Error: "
    ):
        read_trials([{**made("a", 9, "0.9"), **change}], plan)
