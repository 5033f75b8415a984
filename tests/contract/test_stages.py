"""A stage of another package: one file and an entry point give it a command and a component."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kondense.stages import STAGES
from kondense.usage import TOOK

BLUR = '''
"""A stage that another package brings."""

import dataclasses
import json
from pathlib import Path

from kondense.config import Config, option
from kondense.errors import ShortfallError
from kondense.stages import Artifact, Stage


@dataclasses.dataclass(frozen=True)
class BlurConfig(Config):
    """How images are blurred."""

    radius: float = option(1.5, "radius of the kernel, pixels", interval="(0, 10]")


def run(config, *, dataset_dir, blurred_dir, mask_dir=None):
    """Blur the images."""
    if config.radius == 9.0:
        raise ShortfallError("radius must be smaller to be seen, but got 9.0.")
    blurred_dir.mkdir(parents=True)
    names = [path.name for path in dataset_dir.iterdir()]
    (blurred_dir / "blurred.json").write_text(json.dumps([config.radius, names]))
    return {"images": 3.0}


STAGE = Stage(
    "blur",
    config="blur:BlurConfig",
    run="blur:run",
    summary="blur images",
    inputs=(Artifact("dataset", "Dataset"), Artifact("mask", "Artifact", optional=True)),
    outputs=(Artifact("blurred", "Artifact"), Artifact("metrics", "Metrics", title="blur of {radius}")),
    returns={"images": int},
)
'''
COMPONENT = """
import json, sys
from google.protobuf.json_format import MessageToDict
from kondense.kfp import component
made = component("blur")
container = made.component_spec.implementation.container
print(json.dumps([MessageToDict(made.pipeline_spec), container.command, container.args]))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder as pip would leave it: two packages with entry points, of which one cannot be imported."""
    root = tmp_path / "site"
    for name, text in (("blur", BLUR), ("broken", "import a_module_that_is_not_there\n")):
        metadata = root / f"{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (root / f"{name}.py").write_text(text)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[kondense.stages]\n{name} = {name}:STAGE\n")
    (root / "wrong-1.0.dist-info").mkdir()
    (root / "wrong-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1.0\n")
    (root / "wrong-1.0.dist-info" / "entry_points.txt").write_text("[kondense.stages]\nwrong = blur:STAGE\n")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "dataset.json").write_text("{}")
    return root


def python(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(package), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=package.parent
    )


def command(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(package, "-m", "kondense.cli", *arguments)


def test_the_command_runs_it(package: Path) -> None:
    result = command(package, "blur", "--dataset-dir", "dataset", "--blurred-dir", "out", "--radius=2")
    took, *metrics = result.stdout.splitlines()
    assert (result.returncode, metrics) == (0, ["images=3.0"]), result.stderr
    assert TOOK.fullmatch(took)
    assert json.loads((package.parent / "out" / "blurred.json").read_text()) == [2.0, ["dataset.json"]]
    assert "radius of the kernel, pixels (in (0, 10]; default 1.5)" in " ".join(
        command(package, "blur", "--help").stdout.split()
    )


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--radius=11"], 2, "error: radius must be in (0, 10], but got 11.0."),
        (["--radius=9"], 3, "error: radius must be smaller to be seen, but got 9.0."),
    ],
)
def test_its_errors_are_one_line(flags: list[str], code: int, text: str, package: Path) -> None:
    result = command(package, "blur", "--dataset-dir", "dataset", "--blurred-dir", "out", *flags)
    assert (result.returncode, result.stderr) == (code, f"{text}\n")


def test_a_broken_one_is_named_and_the_others_work(package: Path) -> None:
    usage = command(package, "--help")
    assert usage.returncode == 0
    assert "  blur          blur images" in usage.stdout.splitlines()
    (line,) = (line for line in usage.stdout.splitlines() if line.startswith("  broken "))
    assert "unusable: the stage broken cannot be imported from broken:STAGE: ModuleNotFoundError" in line
    result = command(package, "broken")
    assert result.returncode == 2
    assert result.stderr.startswith("error: the stage broken cannot be imported from broken:STAGE: ModuleNotFoundError")
    assert len(result.stderr.splitlines()) == 1
    result = command(package, "wrong")
    assert result.stderr.startswith("error: the entry point wrong = blur:STAGE must be a Stage named wrong, but got")


def test_it_has_a_component_that_kfps_executor_runs(package: Path, tmp_path: Path) -> None:
    result = python(package, "-c", COMPONENT)
    assert result.returncode == 0, result.stderr
    spec, words, arguments = json.loads(result.stdout)
    (content,) = spec["components"].values()
    assert content["inputDefinitions"]["parameters"]["radius"]["defaultValue"] == 1.5
    assert content["inputDefinitions"]["artifacts"]["mask"]["isOptional"]
    entries = {
        name: {"artifacts": [{"name": name, "type": {"schemaTitle": f"system.{kind}"}, "uri": str(tmp_path / name)}]}
        for name, kind in (("dataset", "Dataset"), ("blurred", "Artifact"), ("metrics", "Metrics"))
    }
    message = {
        "inputs": {"parameterValues": {"radius": 3}, "artifacts": {"dataset": entries.pop("dataset")}},
        "outputs": {
            "artifacts": entries,
            "parameters": {"Output": {"outputFile": str(tmp_path / "images")}},
            "outputFile": str(tmp_path / "output.json"),
        },
    }
    program = tmp_path / "ephemeral_component.py"
    program.write_text(words[-1])
    executor = ["-m", "kfp.dsl.executor_main", "--component_module_path", str(program)]
    result = python(package, *executor, "--executor_input", json.dumps(message), *arguments[2:])
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "blurred" / "blurred.json").read_text()) == [3.0, ["dataset.json"]]
    written = json.loads((tmp_path / "output.json").read_text())
    assert written["artifacts"]["metrics"]["artifacts"][0]["metadata"] == {
        "images": 3.0,
        "display_name": "blur of 3.0",
    }
    assert written["parameterValues"] == {"images": 3}


def test_an_unknown_name_is_a_key_error_and_built_in_names_cannot_be_replaced() -> None:
    assert "cook" not in STAGES
    with pytest.raises(KeyError):
        STAGES["cook"]
    assert list(STAGES)[:2] == ["data_prep", "train"]
