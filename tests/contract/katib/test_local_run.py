"""A local run does what Katib's controllers do with the same Experiment and the same service."""

import contextlib
import io
import json

import grpc
import pytest
import yaml
from kondense.katib.api import messages, services
from kondense.search.suggesters import SUGGESTERS
from kondense.suggestion import server
from kondense.suggestion.early_stopping import EarlyStoppingService
from kondense.suggestion.trial_objects import TrialObjects
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.runner import run
from rich.console import Console

from tests.contract.katib.controllers import ExperimentSpec, Katib
from tests.support.experiment_example import scripted
from tests.support.fake_api import serve
from tests.support.fake_database import FakeDatabase, serve_database
from tests.support.fake_trials import KatibApi, collector_stops

# Configuration 3 of a bracket fails, configuration 4 reports nothing.
SCRIPT = 'case "$NAME" in *c3-*) exit 1;; *c4-*) ;; *) echo "loss=$LR";; esac'


class Scripted(Katib):
    """The controllers, with trials that end as the script lets them."""

    def _create(self, entry):
        super()._create(entry)
        fates = {"c3": "failed", "c4": "unavailable"}
        config = entry.name.split("-")[-2].partition("c")[2]
        self.trials[entry.name].fate = fates.get(f"c{config}", "ok")


def settings(algorithm):
    if algorithm == "pbt":
        return {"suggestion_trial_dir": "/opt/katib", "n_population": "5", "truncation_threshold": "0.3"}
    return {"resource_name": "units", "r_l": "9"} if algorithm in ("hyperband", "bohb") else {}


def experiment(algorithm, **spec):
    document = scripted(SCRIPT, parallelTrialCount=1, maxTrialCount=18, **spec)
    document["spec"]["parameters"][1]["feasibleSpace"]["max"] = "9"
    if algorithm == "grid":
        document["spec"]["parameters"][0]["feasibleSpace"]["step"] = "0.2"
    stated = [{"name": name, "value": value} for name, value in settings(algorithm).items()]
    document["spec"]["algorithm"] = {"algorithmName": algorithm, "algorithmSettings": stated}
    return document


def run_locally(document, tmp_path):
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(document))
    run(tmp_path / "experiment.yaml", tmp_path / "out", display=Display(Console(file=io.StringIO())))
    return json.loads((tmp_path / "out" / "results.json").read_text())


def run_on_katib(document):
    spec = document["spec"]
    running = server.start(0, host="127.0.0.1")
    algorithm = spec["algorithm"]["algorithmName"]
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        katib = Scripted(
            ExperimentSpec(
                name=document["metadata"]["name"],
                algorithm=algorithm,
                parameters=tuple(spec["parameters"]),
                settings=settings(algorithm),
                parallel=spec["parallelTrialCount"],
                max_trials=spec["maxTrialCount"],
                max_failed=spec.get("maxFailedTrialCount"),
            ),
            channel,
            objective=lambda assignments: float(assignments["lr"]),
        ).run()
    running.stop(0)
    return katib


@pytest.mark.parametrize("algorithm", SUGGESTERS)
def test_the_same_trials_end_the_same_way(algorithm, tmp_path):
    local = run_locally(experiment(algorithm), tmp_path)
    katib = run_on_katib(experiment(algorithm))
    assert local["outcome"] == katib.condition == "Succeeded"
    # Katib starts one more for each trial without metrics; a local run stops at its count.
    issued = {entry.name: dict(entry.assignments) for entry in katib.issued[:18]}
    assert {trial["name"]: trial["assignments"] for trial in local["trials"]} == issued
    conditions = {name: katib.trials[name].condition for name in issued}
    assert {t["name"]: t["status"].replace("_", "").upper() for t in local["trials"]} == conditions
    values = {name: katib.trials[name].value for name in issued}
    assert {t["name"]: None if t["value"] is None else repr(t["value"]) for t in local["trials"]} == values


def test_the_failed_count_fails_both(tmp_path):
    document = experiment("random", maxFailedTrialCount=2)
    local, katib = run_locally(document, tmp_path), run_on_katib(document)
    assert local["outcome"] == katib.condition == "Failed"
    assert [trial["name"] for trial in local["trials"]] == [entry.name for entry in katib.issued]


TRIALS = "/apis/kubeflow.org/v1beta1/namespaces/kubeflow/trials"
RULE = {"min_trials_required": "3", "start_step": "2"}


class Stopping(Katib):
    """The controllers with early stopping; a trial reports its units twice, then ten times its lr, which counts."""

    def __init__(self, *arguments, stopping, api, database, address, **options):
        super().__init__(*arguments, **options)
        self.stopping, self.api, self.database, self.address = stopping, api, database, address
        self.rules = {}

    def experiment(self):
        made = super().experiment()
        made.spec.early_stopping.algorithm_name = "medianstop"
        for name, value in RULE.items():
            made.spec.early_stopping.algorithm_settings.add(name=name, value=value)
        return made

    def _store(self, reply):
        trials = [self._trial(trial) for trial in self.trials.values() if self._reported(trial)]
        request = messages.GetEarlyStoppingRulesRequest(
            experiment=self.experiment(), trials=trials, db_manager_address=self.address
        )
        rules = self.stopping.GetEarlyStoppingRules(request, timeout=60).early_stopping_rules
        self.rules |= {entry.trial_name: rules for entry in reply.parameter_assignments}
        super()._store(reply)

    def _create(self, entry):
        super()._create(entry)
        objective = {"objectiveMetricName": "loss", "additionalMetricNames": ["accuracy"]}
        status = {"conditions": [{"type": "Created", "status": "True"}]}
        self.api.put(
            f"{TRIALS}/{entry.name}",
            {"metadata": {"name": entry.name}, "spec": {"objective": objective}, "status": status},
        )

    def _end(self, trial):
        lr, units = (trial.assignments[name] for name in ("lr", "units"))
        curve = [("loss", units), ("loss", units), ("loss", f"{lr}e1")]
        first = [float(value) for _, value in curve[:2]]
        if not any(collector_stops(first, rule) for rule in self.rules[trial.name]):
            self.database.reports[trial.name] = curve
            trial.condition, trial.value = "SUCCEEDED", repr(float(curve[-1][1]))
            return
        self.database.reports[trial.name] = curve[:2]
        self.stopping.SetTrialStatus(messages.SetTrialStatusRequest(trial_name=trial.name), timeout=60)
        status = self.api.objects[f"{TRIALS}/{trial.name}"]["status"]
        trial.condition = status["conditions"][-1]["type"].upper()
        (trial.value,) = [each["latest"] for each in status["observation"]["metrics"] if each["name"] == "loss"]


def stopped_on_katib(document):
    """Return the controllers after an Experiment with early stopping, and both services' servers and fakes."""
    api, database, spec = KatibApi(), FakeDatabase({}), document["spec"]
    with contextlib.ExitStack() as stack:
        client, address = stack.enter_context(serve(api)), stack.enter_context(serve_database(database))
        service = EarlyStoppingService(TrialObjects(client.configuration.host, "kubeflow"))
        servers = [server.start(0, host="127.0.0.1", stopping=each) for each in (None, service)]
        for each in servers:
            stack.callback(each.stop, 0)
        suggestion, stopping = (
            stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{each.port}")) for each in servers
        )
        described = ExperimentSpec(
            name=document["metadata"]["name"],
            algorithm=spec["algorithm"]["algorithmName"],
            parameters=tuple(spec["parameters"]),
            parallel=1,
            max_trials=spec["maxTrialCount"],
        )
        stub = services.EarlyStoppingStub(stopping)
        options = {"stopping": stub, "api": api, "database": database, "address": address}
        return Stopping(described, suggestion, objective=lambda assignments: 0.0, **options).run()


def test_early_stopping_ends_the_same_trials_and_leads_to_the_same(tmp_path):
    """Those that Katib's collector stops wait to be stopped here; the next proposals depend on who was stopped."""
    document = experiment("tpe")
    document["spec"]["objective"]["metricStrategies"] = [{"name": "loss", "value": "latest"}]
    entries = [{"name": name, "value": value} for name, value in RULE.items()]
    document["spec"]["earlyStopping"] = {"algorithmName": "medianstop", "algorithmSettings": entries}
    katib = stopped_on_katib(document)
    assert (katib.condition, katib.errors) == ("Succeeded", [])
    stopped = [name for name, trial in katib.trials.items() if trial.condition == "EARLYSTOPPED"]
    assert 4 < len(stopped) < 14
    template = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    waits = f'case "$NAME" in {"|".join(stopped)}) exec sleep 60.81;; esac'
    template["args"] = [f"echo loss=$UNITS; echo loss=$UNITS; {waits}; echo loss=${{LR}}e1"]
    local = run_locally(document, tmp_path)
    assert {trial["name"]: trial["assignments"] for trial in local["trials"]} == {
        name: dict(trial.assignments) for name, trial in katib.trials.items()
    }
    found = {trial["name"]: (trial["status"].replace("_", "").upper(), trial["value"]) for trial in local["trials"]}
    assert found == {name: (trial.condition, float(trial.value)) for name, trial in katib.trials.items()}
