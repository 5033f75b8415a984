"""A local run and Katib with our services propose, and stop, the same trials: every algorithm, over real gRPC.

The controller is modelled after suggestionclient.go and composer.go of Katib 0.19: it sends the Experiment with the
settings of the last reply, all trials but those without metrics, and the number of trials that are open; it asks for
the rule of early stopping with each request.
"""

import copy
import random
import zlib
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from kondense.katib.api import messages, services
from kondense.katib.document import read_search
from kondense.search.history import Status
from kondense.search.run import Outcome, Run
from kondense.search.stopping import read_rule
from kondense.search.suggesters import SUGGESTERS, is_multi_fidelity
from kondense.suggestion import server
from kondense.suggestion.early_stopping import EarlyStoppingService
from kondense_pipelines.local_search.early_stop import EarlyStop, groups

from tests.support.fake_database import FakeDatabase, serve_database
from tests.support.fake_trials import collector_stops

SHIPPED = sorted((Path(__file__).parents[3] / "manifests" / "experiments").glob("*.yaml"))
SHIPPED = [path for path in SHIPPED if path.name != "kustomization.yaml"]
RESOURCE = {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "9"}}
SETTINGS = {
    "pbt": {"suggestion_trial_dir": "/opt/katib", "n_population": "5", "truncation_threshold": "0.3"},
    "bayesianoptimization": {"n_initial_points": "4"},
    "multivariate-tpe": {"n_startup_trials": "4"},
}
CONDITIONAL = ("random", "tpe", "hyperband", "bohb")
TRIALS, PARALLEL = 26, 3
KINDS = {"double": messages.DOUBLE, "int": messages.INT, "discrete": messages.DISCRETE}
KINDS |= {"categorical": messages.CATEGORICAL}
DISTRIBUTIONS = {"uniform": messages.UNIFORM, "logUniform": messages.LOG_UNIFORM}
DISTRIBUTIONS |= {"normal": messages.NORMAL, "logNormal": messages.LOG_NORMAL}
CONDITIONS = {
    Status.CREATED: messages.TrialStatus.CREATED,
    Status.RUNNING: messages.TrialStatus.RUNNING,
    Status.SUCCEEDED: messages.TrialStatus.SUCCEEDED,
    Status.FAILED: messages.TrialStatus.FAILED,
    Status.EARLY_STOPPED: messages.TrialStatus.EARLYSTOPPED,
}


def parameter(name: str, kind: str, **feasible: Any) -> dict[str, Any]:
    return {"name": name, "parameterType": kind, "feasibleSpace": feasible}


ODD = {
    "huge integers": [
        parameter("a", "int", min="0", max=str(2**53 - 1)),
        parameter("b", "int", min="-9007199254740992", max="9007199254740992"),
        parameter("c", "int", min="1", max="1e15", step="7", distribution="logUniform"),
    ],
    "exponents": [
        parameter("a", "double", min="1e-05", max="1E-1", distribution="logUniform"),
        parameter("b", "double", min="-3e0", max="+.5", step="1e-1"),
        parameter("c", "discrete", list=["1e-05", "0.10", "+7", "-1e3", ".5"]),
    ],
    "words": [
        parameter("a", "categorical", list=["true", "false", "1", "01", "1.0", "1e0", "null", "~"]),
        parameter("b", "categorical", list=["a b", "a,b", "x=1;y", "é"]),
        parameter("c", "double", min="-2", max="2", distribution="normal"),
    ],
    "single values": [
        parameter("a", "int", min="7", max="7"),
        parameter("b", "double", min="0.3", max="0.3"),
        parameter("c", "int", min="5", max="6", step="4"),
        parameter("d", "categorical", list=["only"]),
        parameter("e", "double", min="0.0001", max="10", distribution="logNormal"),
    ],
    "conditions": [
        parameter("kind", "categorical", list=["linear", "tree", "net"]),
        parameter("depth", "int", min="1", max="64", distribution="logUniform"),
        parameter("lr", "double", min="0.001", max="1", distribution="logUniform"),
    ],
}


def documents(source: str, algorithm: str) -> dict[str, Any]:
    """Return an Experiment for an algorithm: a shipped file, with its own settings where it is of this algorithm."""
    if source in ODD:
        document: dict[str, Any] = {
            "metadata": {"name": "odd"},
            "spec": {"objective": {"type": "maximize", "objectiveMetricName": "score"}, "parameters": ODD[source]},
        }
        document = copy.deepcopy(document)
        settings = {"conditions": "depth if kind has tree; lr if kind has net"} if source == "conditions" else {}
        settings = settings if algorithm in CONDITIONAL else {}
    else:
        document = yaml.safe_load(next(path for path in SHIPPED if path.name == source).read_text())
        stated = document["spec"]["algorithm"]
        settings = {each["name"]: str(each["value"]) for each in stated.get("algorithmSettings") or []}
        settings = settings if stated["algorithmName"] == algorithm else {}
    spec = document["spec"]
    settings |= SETTINGS.get(algorithm, {})
    if is_multi_fidelity(algorithm) and "resource_name" not in settings:
        if all(each["name"] != "epochs" for each in spec["parameters"]):
            spec["parameters"].append(copy.deepcopy(RESOURCE))
        settings["resource_name"] = "epochs"
    if algorithm == "cmaes" and source in ("words", "grid.yaml"):  # it needs two parameters with a range
        spec["parameters"].append(parameter("another", "double", min="0", max="1"))
    if algorithm == "grid":
        for each in spec["parameters"]:
            space = each["feasibleSpace"]
            if each["parameterType"] == "double" and "step" not in space:
                low, high = float(space["min"]), float(space["max"])
                space["step"] = repr((high - low) / 7 or 1.0)
    spec["algorithm"] = {
        "algorithmName": algorithm,
        "algorithmSettings": [{"name": name, "value": value} for name, value in settings.items()],
    }
    size = read_search(document).space.size
    spec |= {
        "parallelTrialCount": PARALLEL,
        "maxTrialCount": min(TRIALS, size or TRIALS),
        "maxFailedTrialCount": TRIALS,
    }
    return document


def message(document: dict[str, Any]) -> Any:
    """Return the Experiment as ConvertExperiment of suggestionclient.go does."""
    spec = document["spec"]
    sent = messages.Experiment(name=document["metadata"]["name"])
    objective, algorithm = spec["objective"], spec["algorithm"]
    sent.spec.objective.type = {"minimize": messages.MINIMIZE, "maximize": messages.MAXIMIZE}[objective["type"]]
    sent.spec.objective.objective_metric_name = objective["objectiveMetricName"]
    sent.spec.objective.additional_metric_names.extend(objective.get("additionalMetricNames") or [])
    sent.spec.algorithm.algorithm_name = algorithm["algorithmName"]
    for entry in algorithm["algorithmSettings"]:
        sent.spec.algorithm.algorithm_settings.add(name=entry["name"], value=str(entry["value"]))
    for entry in spec["parameters"]:
        space = dict(entry["feasibleSpace"])
        distribution = DISTRIBUTIONS[space.pop("distribution", "uniform")]
        added = sent.spec.parameter_specs.parameters.add(
            name=entry["name"], parameter_type=KINDS[entry["parameterType"]]
        )
        added.feasible_space.CopyFrom(messages.FeasibleSpace(**space, distribution=distribution))
    sent.spec.parallel_trial_count, sent.spec.max_trial_count = spec["parallelTrialCount"], spec["maxTrialCount"]
    if stopping := spec.get("earlyStopping"):
        sent.spec.early_stopping.algorithm_name = stopping["algorithmName"]
        for entry in stopping.get("algorithmSettings") or []:
            sent.spec.early_stopping.algorithm_settings.add(name=entry["name"], value=entry["value"])
    return sent


class Controller:
    """Katib's controller, as far as the services see it."""

    def __init__(self, document: dict[str, Any], channel: grpc.Channel, database: FakeDatabase, address: str) -> None:
        self.experiment, self.database, self.address = message(document), database, address
        self.suggestion, self.stopping = services.SuggestionStub(channel), services.EarlyStoppingStub(channel)
        check = messages.ValidateAlgorithmSettingsRequest(experiment=self.experiment)
        self.suggestion.ValidateAlgorithmSettings(check, timeout=60)
        self.user = list(self.experiment.spec.algorithm.algorithm_settings)
        self.trials: dict[str, Any] = {}
        self.rules: dict[str, list[Any]] = {}

    def start(self, count: int) -> list[tuple[str, dict[str, str]]]:
        """Ask for trials and start them; return their names and assignments."""
        reported = [
            trial for trial in self.trials.values() if trial.status.condition != messages.TrialStatus.METRICSUNAVAILABLE
        ]
        request = messages.GetSuggestionsRequest(
            experiment=self.experiment,
            trials=reported,
            current_request_number=count,
            total_request_number=len(self.trials) + count,
        )
        reply = self.suggestion.GetSuggestions(request, timeout=60)
        rules = []
        if self.experiment.spec.early_stopping.algorithm_name:
            asked = messages.GetEarlyStoppingRulesRequest(
                experiment=self.experiment, trials=reported, db_manager_address=self.address
            )
            rules = list(self.stopping.GetEarlyStoppingRules(asked, timeout=60).early_stopping_rules)
        settings = {entry.name: entry.value for entry in self.user}
        settings |= {entry.name: entry.value for entry in reply.algorithm.algorithm_settings}
        del self.experiment.spec.algorithm.algorithm_settings[:]
        for name, value in settings.items():
            self.experiment.spec.algorithm.algorithm_settings.add(name=name, value=value)
        made = []
        for entry in reply.parameter_assignments:
            trial = messages.Trial(name=entry.trial_name)
            trial.spec.parameter_assignments.assignments.extend(entry.assignments)
            trial.status.condition = messages.TrialStatus.RUNNING
            self.trials[entry.trial_name], self.rules[entry.trial_name] = trial, rules
            made.append((entry.trial_name, {each.name: each.value for each in entry.assignments}))
        return made

    def end(self, name: str, status: Status, metrics: dict[str, str], curve: list[str]) -> Status:
        """End a trial with a status, or stop it early; return what it ended as."""
        objective = self.experiment.spec.objective.objective_metric_name
        if status is Status.SUCCEEDED and any(collector_stops(list(map(float, curve)), r) for r in self.rules[name]):
            status = Status.EARLY_STOPPED
        trial = self.trials[name]
        if status is Status.METRICS_UNAVAILABLE:
            trial.status.condition = messages.TrialStatus.METRICSUNAVAILABLE
            return status
        trial.status.condition = CONDITIONS[status]
        if status is not Status.FAILED:
            self.database.reports[name] = [(objective, text) for text in curve]
            for metric, value in metrics.items():
                trial.status.observation.metrics.add(name=metric, value=value)
        return status


def outcomes(name: str, assignments: dict[str, str], metrics: list[str]) -> tuple[Status, dict[str, str], list[str]]:
    """Return how a trial ends, the same on both sides: a tenth fails, a tenth has no metrics."""
    rng = random.Random(zlib.crc32(repr((name, sorted(assignments.items()))).encode()))
    chance = rng.random()
    status = Status.FAILED if chance < 0.1 else Status.METRICS_UNAVAILABLE if chance < 0.2 else Status.SUCCEEDED
    level = rng.random()
    curve = [repr(level * (1 - 0.7**step) + 0.05 * rng.random()) for step in range(1, rng.choice([3, 7, 9]))]
    return status, {metrics[0]: curve[-1]} | {metric: repr(rng.random()) for metric in metrics[1:]}, curve


class Local:
    """A local run without processes: what `Course` does when trials start and end."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.search = read_search(document)
        self.search.validate()
        self.run = Run(self.search)
        stated = document["spec"].get("earlyStopping")
        rule = None
        if stated:
            settings = {entry["name"]: entry["value"] for entry in stated.get("algorithmSettings") or []}
            rule = read_rule(stated["algorithmName"], settings)
        self.early_stop = EarlyStop(None, rule, self.search.goal, groups(self.search))  # type: ignore[arg-type]

    def start(self, parallel: int) -> list[tuple[str, dict[str, str]]]:
        made = self.run.startable(parallel)
        for trial in made:
            self.early_stop.begin(trial, self.run.finished)
            self.run.record("started", name=trial.name)
        return [(trial.name, dict(trial.assignments)) for trial in made]

    def end(self, name: str, status: Status, metrics: dict[str, str], curve: list[str]) -> Status:
        numbers = list(map(float, curve))
        bound = self.early_stop.bounds.get(name)
        if status is Status.SUCCEEDED and bound is not None and self.early_stop.rule is not None:
            stopped = self.early_stop.rule.stops(numbers, bound, self.search.goal)
            status = Status.EARLY_STOPPED if stopped else status
        valued = status in (Status.SUCCEEDED, Status.EARLY_STOPPED)
        results = {"value": float(metrics[self.search.metric]), "metrics": metrics, "curve": curve and numbers}
        results = results if valued else {"value": None}
        self.run.record("finished", name=name, status=status.value, reason="", **results)
        return status


def compare(document: dict[str, Any], seed: int = 0) -> list[Status]:
    """Run an Experiment on both sides, whose trials end in the same random order; return how they ended."""
    ends, running, rng = [], {}, random.Random(seed)
    database = FakeDatabase({})
    with serve_database(database) as address:
        service = server.start(0, host="127.0.0.1")
        stopping = server.start(0, host="127.0.0.1", stopping=EarlyStoppingService(None))  # type: ignore[arg-type]
        with (
            grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel,
            grpc.insecure_channel(f"127.0.0.1:{stopping.port}") as other,
        ):
            katib, local = Controller(document, channel, database, address), Local(document)
            katib.stopping = services.EarlyStoppingStub(other)
            metrics = [local.search.metric, *(document["spec"]["objective"].get("additionalMetricNames") or [])]
            while local.run.outcome()[0] is Outcome.RUNNING:
                started = local.start(PARALLEL)
                assert katib.start(len(started)) == started
                running |= dict(started)
                for name in rng.sample(sorted(running), rng.randint(1, len(running))):
                    ended = outcomes(name, running.pop(name), metrics)
                    ends.append(local.end(name, *ended))
                    assert katib.end(name, *ended) is ends[-1]
        service.stop(0)
        stopping.stop(0)
    assert len(ends) == document["spec"]["maxTrialCount"]
    return ends


@pytest.mark.parametrize("source", [*(path.name for path in SHIPPED), *ODD])
@pytest.mark.parametrize("algorithm", SUGGESTERS)
def test_the_service_and_a_local_run_propose_the_same_trials(algorithm: str, source: str) -> None:
    ends = compare(documents(source, algorithm))
    assert Status.SUCCEEDED in ends


@pytest.mark.parametrize("rule", ["medianstop", "curvestop"])
@pytest.mark.parametrize("algorithm", [name for name in SUGGESTERS if not is_multi_fidelity(name)])
def test_the_services_and_a_local_run_stop_the_same_trials(algorithm: str, rule: str) -> None:
    document = documents("exponents", algorithm)
    document["spec"]["earlyStopping"] = {
        "algorithmName": rule,
        "algorithmSettings": [{"name": "min_trials_required", "value": "4"}, {"name": "start_step", "value": "2"}],
    }
    ends = compare(document, seed=1)
    assert {Status.EARLY_STOPPED, Status.SUCCEEDED} <= set(ends)
