"""A local run does what Katib's controllers do with the same Experiment and the same service."""

import io
import json

import grpc
import pytest
import yaml
from kondense.search.suggesters import SUGGESTERS
from kondense.suggestion import server
from kondense_pipelines.local_search.live import Display
from kondense_pipelines.local_search.runner import run
from rich.console import Console

from tests.contract.katib.controllers import ExperimentSpec, Katib
from tests.support.experiment_example import scripted

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
