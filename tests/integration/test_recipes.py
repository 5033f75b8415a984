"""A recipe gives the same weights in a trial as in ``kondense run``."""

import io
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from kondense.files import sha256
from kondense_pipelines.graphs.candidates import read_plan
from kondense_pipelines.graphs.parameters import resolve
from kondense_pipelines.local.compress import run_compress
from rich.console import Console

from tests.support.warm import Warm

RECIPES = {
    "channels": "prune:l1:0.5 > quantize:qat",  # a teacher beside the model
    "weights": "prune:magnitude:0.9 > distill > quantize:weight_only",
    "student": "distill:logits:0.5",
}
DATA = {"dataset_name": "digits", "image_size": "16", "limit": "300", "seed": "3"}
FIELDS = {
    "train.epochs": "2",
    "prune.epochs": "2",
    "prune.learning_rate": "0.03",
    "distill.epochs": "2",
    "quantize.epochs": "1",
}
FURTHER = {"prune": "prune_weights", "quantize": "pack_weights"}  # further steps of the pipeline by their stage


def flags(values: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


@pytest.fixture(scope="module")
def in_pipeline(tmp_path_factory: pytest.TempPathFactory, warm_process: Warm) -> Path:
    """The candidates of the compress pipeline, run on this machine with the recipes."""
    directory = tmp_path_factory.mktemp("pipeline")
    settings = {f"data_prep.{name}": value for name, value in DATA.items()} | FIELDS
    for name, value in FIELDS.items():
        stage, _, field = name.partition(".")
        if stage in FURTHER:
            settings[f"{FURTHER[stage]}.{field}"] = value
    settings |= {f"evaluate.{name}_seconds": "0.01" for name in ("latency", "further_latency")}
    settings |= {"evaluate.robustness_images": "0", "publish.store_uri": str(directory / "published")}
    configs = resolve("quick", {"seed": 3}, [f"{name}={value}" for name, value in settings.items()])
    plan = read_plan(configs, "none", [f"{name}={text}" for name, text in RECIPES.items()])
    with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ):
        patch.chdir(directory)  # the store and the cache are there
        console = Console(file=io.StringIO())
        run_compress(configs, directory / "out", console, plan=plan, server=warm_process.server)
    return directory / "out" / "candidates"


@pytest.fixture(scope="module")
def in_trials(tmp_path_factory: pytest.TempPathFactory, warm_process: Warm) -> Path:
    """The models of one trial per recipe."""
    directory = tmp_path_factory.mktemp("trials")
    data = flags({name.replace("_", "-"): value for name, value in DATA.items()})
    commands = [["data_prep", "--dataset-dir=dataset", *data]]
    for name, text in RECIPES.items():
        own = {"dataset-uri": "dataset", "store-uri": "store", "trial-name": name, "recipe": text, "seed": "3"}
        commands.append(["trial", *flags(own | FIELDS)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for command in commands:
            result = warm_process.run(["kondense.cli", *command], os.environ)
            assert result.returncode == 0, result.stdout
    return directory / "store" / "trials"


def description(directory: Path) -> dict[str, Any]:
    (file,) = directory.rglob("model.json")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


@pytest.mark.parametrize("name", RECIPES)
def test_a_trial_and_the_pipeline_give_the_same_weights(name: str, in_pipeline: Path, in_trials: Path) -> None:
    trial, candidate = description(in_trials / name), description(in_pipeline / name)
    assert trial["files"]["weights.safetensors"] == sha256(in_pipeline / name / "weights.safetensors")
    steps = [(step["stage"], step["config"]) for step in trial["lineage"]]
    assert steps == [(step["stage"], step["config"]) for step in candidate["lineage"]][: len(steps)]
