"""The early stopping service over real gRPC, with a fake database manager and a fake Kubernetes API over HTTP.

None of this is Katib: its collector is modelled after file-metricscollector/main.go of Katib 0.19.
"""

import json
import random
import re
import statistics

import grpc
import pytest
from kondense.katib.api import messages, services
from kondense.search.definition import TrialRecord
from kondense.search.history import Status
from kondense.search.stopping import read_rule
from kondense.suggestion import server
from kondense.suggestion.early_stopping import ATTEMPTS, EarlyStoppingService
from kondense.suggestion.observation_logs import MOST_ADDRESSES, DatabaseError, ObservationLogs
from kondense.suggestion.trial_objects import TrialObjects
from kondense_pipelines.local_search.early_stop import EarlyStop

from tests.support.fake_api import serve
from tests.support.fake_database import FakeDatabase, serve_database
from tests.support.fake_trials import KatibApi, collector_stops
from tests.unit.suggestion.test_service import experiment

PATH = "/apis/kubeflow.org/v1beta1/namespaces/team/trials"
CREATED = {"type": "Created", "status": "True"}
RUNNING = {"type": "Running", "status": "True", "reason": "TrialRunning", "message": "Trial is running"}


class Cluster:
    """The service with what it talks to."""

    def __init__(self, tmp_path):
        self.api, self.database = KatibApi(), FakeDatabase({})
        self.token = tmp_path / "token"
        self.token.write_text("first\n")

    def trial(self, name, *conditions, metric="loss"):
        self.api.put(
            f"{PATH}/{name}",
            {
                "metadata": {"name": name},
                "spec": {"objective": {"objectiveMetricName": metric, "additionalMetricNames": ["size"]}},
                "status": {"conditions": [CREATED, *conditions]},
            },
        )

    def status(self, name):
        return self.api.objects[f"{PATH}/{name}"]["status"]


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    with serve(made.api) as client, serve_database(made.database) as made.address:
        service = EarlyStoppingService(TrialObjects(client.configuration.host, "team", made.token))
        running = server.start(0, host="127.0.0.1", stopping=service)
        with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            made.stub = services.EarlyStoppingStub(channel)
            yield made
        running.stop(0)


def spec(**settings):
    made = messages.EarlyStoppingSpec(algorithm_name=settings.pop("algorithm", "medianstop"))
    for name, value in settings.items():
        made.algorithm_settings.add(name=name, value=value)
    return made


def ask(cluster, curves, *, goal=messages.MINIMIZE, **settings):
    """Return the rules after these succeeded trials, by name."""
    sent = experiment(settings.pop("algorithm_of_search", "tpe"), type=goal)
    sent.spec.early_stopping.CopyFrom(spec(**settings))
    cluster.database.reports |= {name: [("loss", text) for text in curve] for name, curve in curves.items()}
    trials = [messages.Trial(name=name) for name in curves]
    for trial in trials:
        trial.status.condition = messages.TrialStatus.SUCCEEDED
    trials.append(messages.Trial(name="running"))
    trials.append(messages.Trial(name="stopped"))
    trials[-1].status.condition = messages.TrialStatus.EARLYSTOPPED
    request = messages.GetEarlyStoppingRulesRequest(
        experiment=sent, trials=trials, db_manager_address=getattr(cluster, "other_address", cluster.address)
    )
    return cluster.stub.GetEarlyStoppingRules(request, timeout=60).early_stopping_rules


def error_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


CURVES = {"a": ["0.5", "0.4", "0.1"], "b": ["900", "900"], "c": ["0.3", "0.2"], "d": ["0.6", "0.6", "0.6"]}


def test_the_rule_is_the_median_of_succeeded_trials(cluster):
    (rule,) = ask(cluster, CURVES, start_step="2")
    averages = [statistics.fmean(map(float, curve[:2])) for curve in CURVES.values()]
    assert float(rule.value) == statistics.median(averages) < statistics.fmean(averages) / 100  # Katib's own: the mean
    assert (rule.name, rule.comparison, rule.start_step) == ("loss", messages.GREATER, 2)
    assert sorted(cluster.database.calls) == sorted(CURVES)
    (rule,) = ask(cluster, CURVES, start_step="2", goal=messages.MAXIMIZE)
    assert rule.comparison == messages.LESS
    assert len(cluster.database.calls) == len(CURVES)  # their reports are known


def test_too_few_succeeded_trials_give_no_rule(cluster):
    assert list(ask(cluster, dict([*CURVES.items()][:2]))) == []
    assert list(ask(cluster, CURVES, min_trials_required="5")) == []
    (rule,) = ask(cluster, CURVES)
    assert rule.start_step == 4


def test_reports_that_are_no_number_do_not_count(cluster):
    curves = {"a": ["nan", "0.5"], "b": ["unavailable"], "c": [], "d": ["inf", "0.25", "x"]}
    assert list(ask(cluster, curves)) == []  # two trials are left
    (rule,) = ask(cluster, curves, min_trials_required="2")
    assert float(rule.value) == 0.375


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"min_trials_required": "0"}, "min_trials_required must be a whole number of at least 1, but got '0'"),
        ({"start_step": "1.5"}, "start_step must be a whole number of at least 1, but got '1.5'"),
        ({"start_step": "many"}, "start_step must be a whole number, but got 'many'"),
        ({"start_step": str(2**31)}, "start_step must be at most 2,147,483,647"),
        ({"patience": "3"}, "unknown setting 'patience' of medianstop; the settings are min_trials_required"),
        (
            {"algorithm": "meanstop"},
            "earlyStopping.algorithmName must be one of curvestop, medianstop, but got 'meanstop'",
        ),
    ],
)
def test_settings_that_break_a_rule_are_invalid_arguments(cluster, settings, rule):
    request = messages.ValidateEarlyStoppingSettingsRequest(early_stopping=spec(**settings))
    for call in (lambda: cluster.stub.ValidateEarlyStoppingSettings(request), lambda: ask(cluster, CURVES, **settings)):
        code, details = error_of(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT and rule in details


def test_settings_that_katib_takes_are_valid(cluster):
    for settings in ({}, {"min_trials_required": "1", "start_step": "1"}):
        request = messages.ValidateEarlyStoppingSettingsRequest(early_stopping=spec(**settings))
        assert cluster.stub.ValidateEarlyStoppingSettings(request) == messages.ValidateEarlyStoppingSettingsReply()


def test_a_request_that_cannot_be_answered_tells_why(cluster):
    code, details = error_of(lambda: ask(cluster, CURVES, goal=messages.UNKNOWN))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "objective.type must be minimize or maximize" in details
    cluster.database.down = True
    code, details = error_of(lambda: ask(cluster, CURVES))
    assert code is grpc.StatusCode.UNAVAILABLE and f"database manager {cluster.address} must answer" in details
    for cluster.other_address in ("katib-db-manager", "unix:/tmp/socket:1", "dns://1.1.1.1/host:1", "host:1:2"):
        code, details = error_of(lambda: ask(cluster, CURVES))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert f"HOST:PORT, but got '{cluster.other_address}'" in details


def test_rules_for_an_algorithm_that_is_not_known_are_refused(cluster):
    code, details = error_of(lambda: ask(cluster, CURVES, algorithm_of_search="darts"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "algorithm must be one of" in details


def test_connections_to_addresses_that_others_name_do_not_pile_up(cluster):
    logs = ObservationLogs(timeout_s=0.01)
    for number in range(MOST_ADDRESSES + 3):
        with pytest.raises(DatabaseError):
            logs.read(f"127.0.0.1:{number + 1}", "t")
    assert len(logs._stubs) <= MOST_ADDRESSES
    cluster.database.reports["t"] = [("loss", "0.5")]
    assert logs.read(cluster.address, "t") == [("loss", "0.5")]


def test_a_trial_of_another_form_is_not_stopped(cluster):
    cluster.trial("t-1", {"type": "Running", "status": 3})
    code, details = error_of(lambda: stop(cluster, "t-1"))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert details == "the Trial: status.conditions[1].status must be str, but got int '3'."


def stop(cluster, name):
    return cluster.stub.SetTrialStatus(messages.SetTrialStatusRequest(trial_name=name), timeout=60)


def test_a_stopped_trial_gets_katibs_condition_and_its_observation(cluster):
    cluster.trial("t-1", RUNNING)
    ask(cluster, CURVES)
    cluster.database.reports["t-1"] = [("loss", "0.9"), ("size", "5"), ("loss", "0.7"), ("loss", "0.8")]
    cluster.api.meanwhile = ATTEMPTS - 1  # the controller changes the status, too
    stop(cluster, "t-1")
    status = cluster.status("t-1")
    assert status["conditions"][:2] == [CREATED, RUNNING]
    added = status["conditions"][2]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", added.pop("lastTransitionTime"))
    assert added.pop("lastUpdateTime")
    assert added == {
        "type": "EarlyStopped",
        "status": "True",
        "reason": "TrialEarlyStopped",
        "message": "Trial is early stopped",
    }
    assert status["observation"]["metrics"] == [
        {"name": "loss", "min": "0.7", "max": "0.9", "latest": "0.8"},
        {"name": "size", "min": "5", "max": "5", "latest": "5"},
    ]
    before = json.dumps(status)
    stop(cluster, "t-1")  # again
    assert json.dumps(cluster.status("t-1")) == before


@pytest.mark.parametrize("why", ["restarted", "database down", "nothing reported"])
def test_without_reports_the_condition_is_set_all_the_same(cluster, why):
    cluster.trial("t-1", RUNNING)
    if why != "restarted":
        ask(cluster, CURVES)
    cluster.database.down = why == "database down"
    stop(cluster, "t-1")
    status = cluster.status("t-1")
    assert status["conditions"][-1]["type"] == "EarlyStopped" and "observation" not in status


def test_what_keeps_a_trial_from_its_status_is_told(cluster):
    for name, call, code in (
        ("../secrets/x", None, grpc.StatusCode.INVALID_ARGUMENT),
        ("missing", None, grpc.StatusCode.NOT_FOUND),
        ("ended", {"type": "Failed", "status": "True"}, grpc.StatusCode.FAILED_PRECONDITION),
        ("refused", RUNNING, grpc.StatusCode.PERMISSION_DENIED),
        ("contended", RUNNING, grpc.StatusCode.ABORTED),
    ):
        if call is not None:
            cluster.trial(name, call)
        cluster.api.refuse[("PATCH", f"{PATH}/refused")] = 403
        cluster.api.meanwhile = ATTEMPTS if name == "contended" else 0
        found, details = error_of(lambda name=name: stop(cluster, name))
        assert found is code, details
        if call is not None:
            assert len(cluster.status(name)["conditions"]) == 2
    _, details = error_of(lambda: stop(cluster, "ended"))
    assert details == "trial ended must be running to be stopped early, but is Failed."
    cluster.token.unlink()
    assert error_of(lambda: stop(cluster, "contended"))[0] is grpc.StatusCode.UNAVAILABLE


def test_a_pod_without_an_account_does_not_start(tmp_path, caplog, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(server.logs, "start", lambda level: None)
    assert server.main(["--service", "early-stopping", "--port", "0"]) == 1
    (record,) = caplog.records
    assert "early stopping needs a pod: KUBERNETES_SERVICE_HOST" in record.rule
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(OSError, match="early stopping needs the token of a service account"):
        TrialObjects.of_pod(environment, tmp_path)


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize(("algorithm", "diverged"), [("medianstop", 1e6), ("curvestop", 3.0)])
def test_the_collector_stops_the_trials_that_a_local_run_stops(cluster, goal, algorithm, diverged):
    """Forty trials one after another; some report all at once, some diverge, some are short."""
    rng = random.Random(7)
    settings = {"min_trials_required": "4", "start_step": "3"}
    local = EarlyStop(None, read_rule(algorithm, settings), goal)
    finished, curves, stopped = [], {}, []
    for number in range(40):
        level = diverged if number % 7 == 3 else rng.random()
        curve = [level * 0.8**step + 0.1 * rng.random() for step in range(rng.choice([2, 3, 8]))]
        curve = curve if goal == "minimize" else [-value for value in curve]
        name = f"t-{number}"
        local.begin(TrialRecord(name, {}), finished)
        here = name in local.bounds and local.rule.stops(curve, local.bounds[name], goal)
        asked = messages.MINIMIZE if goal == "minimize" else messages.MAXIMIZE
        rules = ask(cluster, curves, goal=asked, algorithm=algorithm, **settings)
        there = any(collector_stops(curve, rule) for rule in rules)
        assert there is here
        assert [float(rule.value) for rule in rules] == ([local.bounds[name]] if name in local.bounds else [])
        status = Status.EARLY_STOPPED if here else Status.SUCCEEDED
        finished.append(TrialRecord(name, {}, status=status, curve=curve))
        if here:
            stopped.append(name)
        else:
            curves[name] = [repr(value) for value in curve]
    assert 4 < len(stopped) < 30  # both happen


def test_brackets_are_not_stopped_by_katibs_one_rule_for_trials_of_all_resources(cluster):
    sent = experiment("bohb", early_stopping="curvestop")
    request = messages.GetEarlyStoppingRulesRequest(experiment=sent, db_manager_address=cluster.address)
    code, details = error_of(lambda: cluster.stub.GetEarlyStoppingRules(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "must be absent with bohb on Katib" in details


def test_connections_are_kept(cluster):
    logs = ObservationLogs()
    cluster.database.reports["x"] = [("loss", "1"), ("size", "2")]
    assert logs.read(cluster.address, "x", "size") == [("size", "2")]
    assert logs.read(cluster.address, "x") == [("loss", "1"), ("size", "2")]
    assert len(logs._stubs) == 1
