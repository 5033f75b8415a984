"""``kondense run`` with a network and pictures of the user's own comes to a report on the first try."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from kondense.artifacts.model import load_model
from kondense.artifacts.report import read_report
from kondense.networks.allowed import allowing
from PIL import Image

NETWORK = '''
"""A small network with what people's own networks have."""

import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.point = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16 * 16, classes)

    def forward(self, images):
        features = F.max_pool2d(F.relu(self.norm(self.stem(images))), 4)
        features = features + F.relu(self.point(self.grouped(features)))
        features = F.adaptive_avg_pool2d(features, 4)
        return self.head(features.view(features.size(0), -1))


def make(classes: int, channels: int, image_size: int) -> Net:
    return Net(classes, channels)
'''
COMMAND = "import sys; from kondense_pipelines.cli.app import main; main()"
OWN = ("--dataset=folder", "--source=images", "--image-size=32", "--network=mine:make")
SETTINGS = {
    "train.epochs": "1",
    "prune.epochs": "1",
    "distill.epochs": "1",
    "data_prep.validation_size": "12",
    "evaluate.latency_seconds": "0.02",
    "evaluate.further_latency_seconds": "0",
    "evaluate.robustness_images": "0",
    "evaluate.min_agreement": "0.5",
    "report.max_validation_drop": "0.9",
    "publish.max_test_drop": "0.9",
    "publish.store_uri": "published",
}
TIMEOUT_S = 400


class Outcome(NamedTuple):
    """How one command ended."""

    code: int
    stdout: str
    stderr: str


def kondense(directory: Path, *arguments: str) -> Outcome:
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()] if arguments[0] == "run" else []
    result = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments, *OWN, *settings],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([".", *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Outcome(result.returncode, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``mine.py`` and 90 pictures of mixed sizes in three classes."""
    directory = tmp_path_factory.mktemp("own")
    (directory / "mine.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "green", "blue")):
        (directory / "images" / name).mkdir(parents=True)
        for number in range(30):
            height, width = (int(side) for side in rng.integers(20, 60, 2))
            pixels = rng.integers(0, 90, (height, width, 3), np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(directory / "images" / name / f"{number}.png")
    return directory


@pytest.fixture(scope="module")
def outcome(workplace: Path) -> Outcome:
    """A run with all steps, the preflight included."""
    return kondense(workplace, "run", "--output=out", "--candidates=pruned-quantized")


def test_it_comes_to_a_report(outcome: Outcome, workplace: Path) -> None:
    assert outcome.code == 0, outcome.stdout[-3000:] + outcome.stderr[-3000:]
    report = read_report(workplace / "out")
    assert [each["name"] for each in report["candidates"]] == ["pruned-quantized"]
    assert (report["network"], report["dataset"]["shape"]) == ("mine:make", [3, 32, 32])
    assert any("of the macs is removed instead of 0.75" in note for note in report["notes"])  # a default, lowered
    assert all(each["paired"]["validation"]["images"] == 12 for each in report["candidates"])
    sys.path.insert(0, str(workplace))
    try:
        with allowing(networks=["mine:make"]):
            load_model(workplace / "out" / "chosen")
    finally:
        sys.path.remove(str(workplace))


def test_a_candidate_that_fails_leaves_a_report_with_the_others(outcome: Outcome, workplace: Path) -> None:
    """The steps of the first run are reused; without the preflight the recipe fails in its first step."""
    again = kondense(
        workplace,
        "run",
        "--output=far",
        "--candidates=quantized",
        "--recipe=far=prune:l1:0.999 > quantize",
        "--no-check",
    )
    assert again.code == 3, again.stdout[-3000:] + again.stderr[-3000:]
    report = read_report(workplace / "far")
    assert [each["name"] for each in report["candidates"]] == ["quantized"]
    (failed,) = report["failed"]
    assert (failed["name"], failed["step"]) == ("far", "prune")
    assert f"✗ far failed in prune: {failed['reason']}" in again.stdout
    assert "- quantize 2 of far" in again.stdout
    assert not (workplace / "far" / "candidates" / "far").exists()
    assert "sparsity must be at most" in (workplace / "far" / "report.html").read_text(encoding="utf-8")
    timings = json.loads((workplace / "far" / "timings.json").read_text())
    reused = {each["name"] for each in timings["steps"] if each["reused"]}
    assert reused >= {"data prep", "train teacher", "evaluate teacher"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--recipe=far=prune:l1:0.999"], "prune 1 of far is impossible: sparsity must be at most"),
        (["--set=prune.sparsity=0.999", "--candidates=pruned"], "prune is impossible: sparsity must be at most"),
    ],
)
def test_what_is_asked_for_in_vain_is_refused_before_any_work(
    arguments: Sequence[str], expected: str, workplace: Path
) -> None:
    given = [*arguments] if any("--candidates" in each for each in arguments) else [*arguments, "--candidates=none"]
    result = kondense(workplace, "check", *given)
    assert result.code == 2, result.stdout + result.stderr
    assert result.stderr.startswith(f"error: {expected}")
    assert "impossible" in result.stdout and "mine:make trains" in result.stdout
