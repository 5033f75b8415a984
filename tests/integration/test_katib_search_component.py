"""The katib_search component under kfp.local, with a fake API server and a real store, and its outputs."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kondense.artifacts.model import load_model
from kondense.kfp import component
from kondense.store.local import LocalStore
from kondense_pipelines.graphs.compile import EXPERIMENT
from kondense_pipelines.graphs.search import TUNED, read_template
from kondense_pipelines.local.progress import RunProgress
from kondense_pipelines.local.run import LocalSettings, run_pipeline
from kondense_pipelines.local.steps import StepError, StepResult
from rich.console import Console

from tests.support.fake_kubernetes import Server, fake_kubernetes, make_trial
from tests.support.trial_makers import trial_of, write_trial_model

TASKS = ("data prep", "search", "train")
BEST = {"momentum": "0.7", "weight_decay": "0.002", "batch_size": "64", "schedule": "constant", "augment": "none"}


@dsl.pipeline(name="tuning")
def tuning(experiment: dict, store: str, ui: str):
    """The beginning of the search pipeline, with a small network."""
    data = component("data_prep")(dataset_name="digits", image_size=16).set_display_name("data prep").outputs["dataset"]
    tuned = component("katib_search")(
        dataset=data,
        experiment=experiment,
        settings={"eta": 3},
        resources={"gpus": 1, "node_selector": {"pool": "gpu"}, "tolerations": ["gpu:NoSchedule"]},
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        pipeline="tuning",
        ui=ui,
        store_uri=store,
        network="lenet300",
        namespace="kubeflow",
        poll_seconds=0.05,
    ).set_display_name("search")
    tuned.set_caching_options(False)
    best = {name: tuned.outputs[name] for name in TUNED}
    train = component("train")(dataset=data, network="lenet300", width=0.1, epochs=1, device="cpu", **best)
    train.set_display_name("train")


class Tuning:
    """Runs the pipeline against the cluster that a kubeconfig names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = LocalStore(directory / "store")

    def __call__(self, kubeconfig: Path) -> dict[str, StepResult]:
        environment = {"KUBECONFIG": str(kubeconfig)}
        settings = LocalSettings(self.directory / "out", self.directory / "cache", "v", TASKS, environment=environment)
        experiment = dict(read_template(EXPERIMENT))
        arguments = {"experiment": experiment, "store": str(self.store.root), "ui": "https://kf.example"}
        with RunProgress(Console(file=io.StringIO()), len(TASKS)) as progress:
            return run_pipeline(tuning, arguments, settings, progress)

    @property
    def log(self) -> str:
        return (self.directory / "out" / "logs" / "search.log").read_text()

    def keep_model(self, trial: str) -> None:
        """Put a model where a trial leaves it."""
        made = self.directory / "made"
        write_trial_model(made, trial)
        self.store.upload_directory(f"trials/{trial}", made)


@pytest.fixture
def cluster() -> Iterator[Server]:
    with fake_kubernetes() as server:
        yield server


@pytest.fixture
def tuning_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tuning:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return Tuning(tmp_path)


def test_the_best_trials_hyperparameters_train_the_teacher(tuning_run: Tuning, cluster: Server) -> None:
    def play(experiment: dict[str, Any]) -> None:
        """Be Katib: all trials at once, then the end."""
        name = experiment["metadata"]["name"]
        if cluster.trials:
            cluster.finish()
            return
        for index, accuracy in enumerate(("0.5", "0.9", "0.7")):
            trial = f"{name}-b0r2c{index}-abcdef"
            assignments = {**BEST, "epochs": "9", "lr": f"0.0{index + 1}"}
            metrics = {"validation_accuracy": accuracy, "size_bytes": "1000"}
            cluster.trials.append(make_trial(name, trial, assignments, "Succeeded", metrics))
            tuning_run.keep_model(trial)

    cluster.on_look = play
    results = tuning_run(cluster.write_kubeconfig(tuning_run.directory / "kubeconfig"))
    sent = cluster.only_experiment()
    args = sent["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--train.network=lenet300" in args
    assert type(sent["spec"]["maxTrialCount"]) is type(sent["spec"]["parallelTrialCount"]) is int
    pod = sent["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert sent["metadata"]["labels"]["kondense/pipeline"] == "tuning"
    searched = results["search"].outputs
    assert trial_of(searched["model"]) == f"{sent['metadata']['name']}-b0r2c1-abcdef"
    assert f"https://kf.example/katib/experiment/kubeflow/{sent['metadata']['name']}" in tuning_run.log
    assert "<!doctype html>" in searched["html"].read_text()
    assert json.loads((searched["search"] / "best.json").read_text())["value"] == 0.9
    (record,) = load_model(results["train"].outputs["model"]).lineage
    used = record["config"]
    assert (used["learning_rate"], used["batch_size"], used["schedule"]) == (0.02, 64, "constant")
    assert "3/80 trials, best validation_accuracy=0.9 at 9 epochs" in tuning_run.log


def test_without_a_cluster_the_step_says_what_runs_here(tuning_run: Tuning) -> None:
    with pytest.raises(StepError, match="step 'search' failed: .*kondense search FILE runs the same Experiment"):
        tuning_run(tuning_run.directory / "no-kubeconfig")
