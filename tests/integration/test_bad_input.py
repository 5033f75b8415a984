"""Bad input to a component ends in one line that says why, in the way of kfp's own executor."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from kondense.kfp import component
from kondense.stages import STAGES
from kondense_pipelines.local.steps import failure_line

from tests.support.strict_kfp.fork_server import ForkServer

COMPONENTS = sorted(STAGES.components())
EXPERIMENT = yaml.safe_load((Path(__file__).parents[2] / "manifests" / "experiments" / "bohb.yaml").read_text())
# A parameter that the Config refuses, and what the line says of it.
REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "champion": ({"model_name": "a name"}, "model_name must be"),
    "data_prep": ({"dataset_name": "mnist"}, "dataset_name must be one of cifar10, "),
    "distill": ({"epochs": 0}, "epochs must be in [1, "),
    "evaluate": ({"arithmetic": "int4"}, "arithmetic must be one of "),
    "prune": ({"method": "l3"}, "method must be one of "),
    "publish": ({"objective": "price"}, "objective must be one of "),
    "quantize": ({"bits": 1}, "bits must be in [2, 8]"),
    "report": ({"max_validation_drop": 2.0}, "max_validation_drop must be in "),
    "train": ({"optimizer": "adam"}, "optimizer must be one of "),
    "train_job": ({"nodes": 0}, "nodes must be in [1, 1000]"),
    "verdict": ({"fail": "perhaps"}, "fail must be "),
    "katib_search": (
        {"resources": {"gpu": 1.0}},
        "resources must be of gpus, accelerator, cpu, memory, shared_memory, ",
    ),
}
# Parameters that the Config takes, and what the stage then finds out: inputs or files that are not there.
WITHOUT_FILES: Mapping[str, tuple[dict[str, Any], str]] = {
    "champion": ({}, "input dataset is gone: run it again without the cache"),
    "data_prep": ({"dataset_name": "folder", "source": "/nowhere"}, "/nowhere"),
    "distill": ({}, "input dataset is gone: run it again without the cache"),
    "evaluate": ({}, "input dataset is gone: run it again without the cache"),
    "prune": ({}, "input dataset is gone: run it again without the cache"),
    "publish": ({"store_uri": "store"}, "input report is gone: run it again without the cache"),
    "quantize": ({}, "input dataset is gone: run it again without the cache"),
    "report": ({}, "input teacher is gone: run it again without the cache"),
    "train": ({}, "input dataset is gone: run it again without the cache"),
    "train_job": ({"run_id": "1"}, "input dataset is gone: run it again without the cache"),
    "verdict": ({}, "input report is gone: run it again without the cache"),
    "katib_search": (
        {"experiment": EXPERIMENT, "run_id": "1"},
        "input dataset is gone: run it again without the cache",
    ),
}


class Steps:
    """Runs a component's source by kfp's executor in a process of its own."""

    def __init__(self, server: ForkServer, directory: Path) -> None:
        self.server, self.directory = server, directory

    def __call__(self, name: str, parameters: Mapping[str, Any]) -> tuple[int, list[str]]:
        """Return the exit code and the log's lines; the artifacts that it needs are not there."""
        specification = component(name).component_spec
        inputs, outputs = specification.inputs or {}, specification.outputs or {}
        message = {
            "inputs": {
                "parameterValues": dict(parameters),
                "artifacts": {
                    key: self.artifact(key, "in")
                    for key, each in inputs.items()
                    if "@" in each.type and not each.optional
                },
            },
            "outputs": {
                "artifacts": {key: self.artifact(key, "out") for key, each in outputs.items() if "@" in each.type},
                "parameters": {
                    key: {"outputFile": f"{self.directory}/{key}"}
                    for key, each in outputs.items()
                    if "@" not in each.type
                },
                "outputFile": str(self.directory / "output.json"),
            },
        }
        container = specification.implementation.container
        arguments = ["--executor_input", json.dumps(message), *container.args[2:]]
        log = self.directory / "log"
        environment = {"PATH": "/usr/bin", "HOME": str(self.directory), "TMPDIR": str(self.directory)}
        code = self.server.run(container.command[-1], arguments, environment, self.directory, log)
        return code, log.read_text().splitlines()

    def artifact(self, name: str, side: str) -> dict[str, Any]:
        place = self.directory / "minio" / "bucket" / side / name
        place.parent.mkdir(parents=True, exist_ok=True)
        return {"artifacts": [{"name": name, "uri": f"minio://bucket/{side}/{name}", "metadata": {}}]}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture
def steps(server: ForkServer, tmp_path: Path) -> Steps:
    return Steps(server, tmp_path)


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("given", [REFUSED, WITHOUT_FILES], ids=["refused", "without-files"])
def test_bad_input_ends_in_one_line(given: Mapping[str, Any], name: str, steps: Steps) -> None:
    parameters, expected = given[name]
    code, lines = steps(name, parameters)
    assert code == 2
    assert lines[-1].startswith("error: ")
    assert expected in lines[-1]
    assert not [line for line in lines if "Traceback" in line]
    assert expected in failure_line(name, code, lines, Path("log"))  # what `kondense run` shows


@pytest.mark.parametrize(("name", "step"), [("train", "train"), ("prune", "prune_weights"), ("distill", "distill")])
def test_a_profile_stands_for_minus_one_only_where_the_step_is_told(name: str, step: str, steps: Steps) -> None:
    code, lines = steps(name, {"epochs": -1})
    assert code == 2 and lines[-1].startswith("error: epochs must be in ")
    (steps.directory / "log").unlink()
    code, lines = steps(name, {"epochs": -1, "profile": "full", "step": step})
    assert code == 2 and "input dataset is gone" in lines[-1]  # the numbers are taken
    (steps.directory / "log").unlink()
    code, lines = steps(name, {"epochs": -1, "profile": "fastest", "step": step})
    assert code == 2 and lines[-1] == "error: profile must be one of full, quick, but got 'fastest'."
