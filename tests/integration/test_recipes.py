"""A recipe gives the same weights in a trial as in ``kondense run``."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kondense.files import sha256

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
COMMAND = "import sys; from kondense_pipelines.cli.app import main; main()"
TRIALS = "import json, sys; from kondense.cli import main; sys.exit(any(map(main, json.loads(sys.argv[1]))))"
TIMEOUT_S = 300


def run(program: str, arguments: Sequence[str], directory: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]


def flags(values: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


@pytest.fixture(scope="module")
def in_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The candidates of ``kondense run`` with the recipes."""
    directory = tmp_path_factory.mktemp("pipeline")
    settings = {f"data_prep.{name}": value for name, value in DATA.items()} | FIELDS
    for name, value in FIELDS.items():
        stage, _, field = name.partition(".")
        if stage in FURTHER:
            settings[f"{FURTHER[stage]}.{field}"] = value
    settings |= {f"evaluate.{name}_seconds": "0.05" for name in ("latency", "further_latency")}
    settings |= {"evaluate.robustness_images": "0", "publish.store_uri": "published"}
    arguments = ["run", "--no-check", "--seed=3", "--candidates=none", "--output=out"]
    arguments += [f"--recipe={name}={text}" for name, text in RECIPES.items()]
    run(COMMAND, [*arguments, *(f"--set={name}={value}" for name, value in settings.items())], directory)
    return directory / "out" / "candidates"


@pytest.fixture(scope="module")
def in_trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of one trial per recipe."""
    directory = tmp_path_factory.mktemp("trials")
    data = flags({name.replace("_", "-"): value for name, value in DATA.items()})
    commands = [["data_prep", "--dataset-dir=dataset", *data]]
    for name, text in RECIPES.items():
        own = {"dataset-uri": "dataset", "store-uri": "store", "trial-name": name, "recipe": text, "seed": "3"}
        commands.append(["trial", *flags(own | FIELDS)])
    run(TRIALS, [json.dumps(commands)], directory)
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
