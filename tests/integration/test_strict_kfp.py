"""The three pipelines on a stand-in for KFP's backend that is as strict as the real one.

kfp.local takes what a cluster refuses: here artifacts come without a type, metadata as the store gives them back, a
whole float as an int, and no task may get one artifact under two names.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.file_store import LocalStore
from components.artifacts.model import load_model
from components.artifacts.report import read_report
from components.artifacts.store import open_store
from components.publish.versions import version_ids
from pipelines.compile import compile_all
from pipelines.compress import task_names
from pipelines.parameters import resolve
from pipelines.plan import read_plan
from pipelines.refresh import refresh_task_names
from pipelines.resources import Resources
from tests.fake_kubernetes import fake_kubernetes, make_trial
from tests.strict_kfp.backend import Backend, Step
from tests.strict_kfp.fork_server import ForkServer

NAME = "lenet300-digits"
PLAIN = {
    "dataset": "digits",
    "seed": 1,
    "image_limit": 200,
    "network": "lenet300",
    "train_epochs": 2,
    "prune_epochs": 1,
    "sparsify_epochs": 1,
    "distill_epochs": 1,
    "report_objective": "bytes",
    "max_accuracy_drop": 0.9,
}
SETTINGS = (
    *("data_prep.image_size=16", "train.batch_size=32", "prune.steps=1", "sparsify.steps=1"),
    *("evaluate.latency_seconds=0.02", "evaluate.further_latency_seconds=0.01", "evaluate.robustness_images=20"),
)
RECIPE = "own=distill:epochs=1 > prune:magnitude:0.5:epochs=1 > quantize:weight_only:4"
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

    def compile(self, name: str, candidates: str | None, *recipes: str) -> Path:
        configs = resolve("quick", PLAIN | {"publish_store_uri": str(self.store)}, SETTINGS)
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


def test_compress_runs_to_its_end_and_a_second_time_from_the_cache(server: ForkServer, tmp_path: Path) -> None:
    cluster = Cluster(server, tmp_path)
    package = cluster.compile("compress", None, RECIPE)
    steps = cluster.run(package)
    plan = read_plan(resolve("quick"), None, [RECIPE])
    assert {*steps} == {*task_names(plan)}
    report = read_report(steps["report"].outputs["report"])
    assert [each["name"] for each in report["candidates"]] == [*plan.candidates]
    assert steps["report"].outputs["html"].read_text().startswith("<!DOCTYPE html>")
    load_model(steps["report"].outputs["chosen"])
    assert steps["publish"].metadata["metrics"]["published"] == 1
    assert len(cluster.versions) == 1

    again = cluster.run(package)
    assert {name for name, step in again.items() if not step.cached} == {"publish"}


def test_refresh_stops_after_the_champion_when_the_data_are_the_same(server: ForkServer, tmp_path: Path) -> None:
    cluster = Cluster(server, tmp_path)
    package = cluster.compile("refresh", "quantized", "own=quantize:qat:epochs=1")
    first = cluster.run(package)
    names = refresh_task_names(read_plan(resolve("quick"), "quantized", ["own=quantize:qat:epochs=1"]))
    assert {*first} == {*names}
    assert first["champion"].parameters == {"Output": True}
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
                (tmp_path / trial).mkdir()
                (tmp_path / trial / "model.json").write_text(trial)
                store.upload_directory(f"trials/{trial}", tmp_path / trial)
            katib.finish()

        katib.on_look = play
        cluster = Cluster(server, tmp_path, KUBECONFIG=str(katib.write_kubeconfig(tmp_path / "kubeconfig")))
        package = cluster.compile("search", "pruned")
        steps = cluster.run(package, search_namespace="kubeflow", search_store_uri=str(store.root))
        found = katib.only_experiment()["metadata"]["name"]

    searched = steps["search with Katib"]
    assert searched.parameters["trial"] == f"{found}-b0r2c1-abcdef"
    assert (searched.outputs["model"] / "model.json").read_text() == searched.parameters["trial"]
    (record,) = load_model(steps["train teacher"].outputs["model"]).lineage
    used = record["config"]
    assert (used["learning_rate"], used["batch_size"], used["schedule"]) == (0.02, 64, "constant")
    assert read_report(steps["report"].outputs["report"])["chosen"] == "pruned"
    assert len(cluster.versions) == 1
