"""The three pipelines on a stand-in for KFP's backend that is as strict as the real one.

kfp.local takes what a cluster refuses: here artifacts come without a type, metadata as the store gives them back, a
whole float as an int, and no task may get one artifact under two names.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from kondense.artifacts.comparison import COMPARED
from kondense.artifacts.metadata import KEYS, REQUIRED
from kondense.artifacts.model import load_model
from kondense.artifacts.report import read_report
from kondense.publish.versions import version_ids
from kondense.store.local import LocalStore
from kondense.store.open import open_store
from kondense_pipelines.graphs.candidates import read_plan
from kondense_pipelines.graphs.compile import compile_all
from kondense_pipelines.graphs.compress import cluster_task_names
from kondense_pipelines.graphs.parameters import resolve
from kondense_pipelines.graphs.refresh import refresh_task_names
from kondense_pipelines.graphs.resources import Resources

from tests.support.fake_kubernetes import fake_kubernetes, make_trial
from tests.support.strict_kfp.backend import Backend, Step
from tests.support.strict_kfp.driver import LOGS
from tests.support.strict_kfp.fork_server import ForkServer
from tests.support.trial_makers import trial_of, write_trial_model

pytestmark = pytest.mark.usefixtures("quick_yaml")

NAME = "lenet300-digits"
PLAIN = {
    "dataset": "digits",
    "seed": 1,
    "dataset_image_size": 16,
    "network": "lenet300",
    "train_epochs": 2,
    "report_objective": "bytes",
    "report_max_drop": 0.9,
}
SETTINGS = (
    *("data_prep.limit=200", "train.batch_size=32", "prune.epochs=1", "prune.steps=1"),
    *("prune_weights.epochs=1", "prune_weights.steps=1", "distill.epochs=1"),
    *("evaluate.latency_seconds=0.02", "evaluate.further_latency_seconds=0.01", "evaluate.robustness_images=20"),
)
# Outputs of the components -> what they say of themselves.
KINDS = {
    **dict.fromkeys(("model", "pruned", "quantized", "student"), "model"),
    **dict.fromkeys(("candidate", "chosen"), "measured model"),
    **{name: name for name in ("dataset", "report", "receipt", "champion", "search")},
}
NOT_OURS = ("store_session_info", "confusionMatrix")  # the store's own, and what kfp makes of a matrix
RECIPE = "own=distill:epochs=1 > prune:magnitude:0.5:epochs=1 > quantize:weight_only:4"
TOO_FAR = "too-far=prune:l1:0.999:epochs=1 > quantize"
CANDIDATES = "distilled,pruned-distilled-quantized,sparse-packed"  # tasks of every kind
BEST = {"momentum": "0.7", "weight_decay": "0.002", "batch_size": "64", "schedule": "constant", "augment": "none"}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


class Cluster:
    """A backend, and the pipelines with settings that take seconds; ``versions`` are those published."""

    def __init__(self, server: ForkServer, directory: Path, **environment: str) -> None:
        self.directory = directory
        self.store = directory / "published"
        self.backend = Backend(directory / "backend", server, environment=environment)

    def compile(self, name: str, candidates: str | None, *recipes: str, more: Sequence[str] = ()) -> Path:
        configs = resolve("quick", PLAIN, (*SETTINGS, f"publish.store_uri={self.store}", *more))
        resources = Resources(checkpoints=str(self.directory / "checkpoints"))
        plan = read_plan(configs, candidates, recipes)
        (path,) = compile_all(configs, self.directory, only=(name,), resources=resources, plan=plan)
        return path

    def run(self, package: Path, **parameters: Any) -> dict[str, Step]:
        steps = self.backend.run(package, parameters)
        for step in steps.values():
            for each in step.message["inputs"].get("artifacts", {}).values():
                assert "schemaTitle" not in each["artifacts"][0].get("type", {})
        return steps

    @property
    def versions(self) -> list[str]:
        return version_ids(open_store(str(self.store)), NAME)


def check_metadata(steps: Mapping[str, Step]) -> None:
    """Every artifact says what it is, in finite numbers and texts; runs are compared by one set of figures."""
    for title, step in steps.items():
        for name, metadata in step.metadata.items():
            if name == LOGS:
                continue
            where, found = f"{title}: {name}", {key: metadata[key] for key in metadata if key not in NOT_OURS}
            assert metadata["display_name"] not in ("", name), where
            for key, value in found.items():
                assert isinstance(value, str) or (type(value) in (int, float) and math.isfinite(value)), (where, key)
            if name == "metrics":
                assert {*found} == {*COMPARED, "display_name"}, where
            elif name in KINDS:
                assert {*REQUIRED[KINDS[name]]} <= {*found} <= {*KEYS}, where
            else:
                assert {*found} == {"display_name"}, where


def test_compress_runs_to_its_end_and_a_second_time_from_the_cache(server: ForkServer, tmp_path: Path) -> None:
    cluster = Cluster(server, tmp_path)
    package = cluster.compile("compress", CANDIDATES, RECIPE, TOO_FAR, more=["verdict.fail=false"])
    steps = cluster.run(package)
    plan = read_plan(resolve("quick"), CANDIDATES, [RECIPE, TOO_FAR])
    assert {*steps} == {*cluster_task_names(plan)}
    report = read_report(steps["report"].outputs["report"])
    (failed,) = report["failed"]  # the others are finished, compared and published
    assert (failed["name"], failed["step"]) == ("too-far", "prune")
    assert "sparsity must be at most" in failed["reason"]
    for name in ("prune 1 of too-far", "quantize 2 of too-far", "evaluate too-far"):
        shown = [each["display_name"] for output, each in steps[name].metadata.items() if output != LOGS]
        assert shown and all(each.startswith("FAILED: prune: sparsity must be at most") for each in shown)
    assert "too-far failed in prune" in steps["verdict"].log
    assert [each["name"] for each in report["candidates"]] == [name for name in plan.candidates if name != "too-far"]
    page = steps["report"].outputs["html"]
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert page.stat().st_size < 1_000_000  # KFP's page loads it whole into a frame
    load_model(steps["report"].outputs["chosen"])
    assert steps["publish"].metadata["receipt"]["published"] == 1
    check_metadata({name: step for name, step in steps.items() if "too-far" not in name})
    chosen = steps["report"].metadata["chosen"]
    assert chosen["display_name"] == f"chosen: {report['chosen']}"
    assert steps["report"].metadata["metrics"]["bytes"] == chosen["bytes"]
    assert len(cluster.versions) == 1

    again = cluster.run(package)
    assert {name for name, step in again.items() if not step.cached} == {"publish", "verdict"}


def test_refresh_stops_after_the_champion_when_the_data_are_the_same(server: ForkServer, tmp_path: Path) -> None:
    cluster = Cluster(server, tmp_path)
    package = cluster.compile("refresh", "quantized", "own=quantize:qat:epochs=1")
    first = cluster.run(package)
    names = refresh_task_names(read_plan(resolve("quick"), "quantized", ["own=quantize:qat:epochs=1"]))
    assert {*first} == {*names}
    assert first["champion"].parameters == {"Output": True}
    check_metadata(first)
    assert len(cluster.versions) == 1

    second = cluster.run(package)
    assert {*second} == {"data prep", "champion"}
    assert second["champion"].parameters == {"Output": False}
    assert len(cluster.versions) == 1


def test_search_hands_katibs_best_to_the_teachers_training(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    store = LocalStore(tmp_path / "trials")

    with fake_kubernetes() as katib:

        def play(experiment: dict[str, Any]) -> None:
            """Be Katib: all trials and the end at once."""
            name = experiment["metadata"]["name"]
            for index, accuracy in enumerate(("0.5", "0.9", "0.7") if not katib.trials else ()):
                trial = f"{name}-b0r2c{index}-abcdef"
                metrics = {"validation_accuracy": accuracy, "size_bytes": "1000"}
                assignments = {**BEST, "epochs": "9", "lr": f"0.0{index + 1}"}
                katib.trials.append(make_trial(name, trial, assignments, "Succeeded", metrics))
                write_trial_model(tmp_path / trial, trial)
                store.upload_directory(f"trials/{trial}", tmp_path / trial)
            katib.finish()

        katib.on_look = play
        cluster = Cluster(server, tmp_path, KUBECONFIG=str(katib.write_kubeconfig(tmp_path / "kubeconfig")))
        where = ("katib_search.namespace=kubeflow", f"katib_search.store_uri={store.root}")
        package = cluster.compile("search", "pruned", more=where)
        trial = {"gpus": 0, "tolerations": ["team=vision:NoSchedule"]}
        steps = cluster.run(package, trial_resources=trial, search_settings={"eta": 3})
        sent = katib.only_experiment()
        found = sent["metadata"]["name"]

    pod = sent["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    assert [each["key"] for each in pod["tolerations"]] == ["team"]
    assert not [name for name in pod["containers"][0]["resources"]["limits"] if "/" in name]
    searched = steps["search with Katib"]
    assert searched.parameters["trial"] == f"{found}-b0r2c1-abcdef"
    assert trial_of(searched.outputs["model"]) == searched.parameters["trial"]
    check_metadata(steps)
    assert searched.metadata["search"]["best_value"] == 0.9
    (record,) = load_model(steps["train teacher"].outputs["model"]).lineage
    used = record["config"]
    assert (used["learning_rate"], used["batch_size"], used["schedule"]) == (0.02, 64, "constant")
    assert read_report(steps["report"].outputs["report"])["chosen"] == "pruned"
    assert len(cluster.versions) == 1
