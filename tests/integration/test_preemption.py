"""SIGTERM in a KFP component, run by the very command that the compiled pipeline gives to its container.

What only a cluster can show: that Argo's and KFP's processes around this command leave it the time to act.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kondense.artifacts.failed import VARIABLE
from kondense.artifacts.model import load_model
from kondense.kfp import component

ROOT = Path(__file__).parents[2]
PARAMETERS = {"epochs": 6, "batch_size": 8, "network": "lenet300", "width": 0.2, "device": "cpu", "seed": 1}


def artifact(name: str, schema: str, path: Path) -> dict[str, Any]:
    entry = {"name": name, "type": {"schemaTitle": schema}, "uri": str(path), "metadata": {}}
    return {"artifacts": [entry]}


class Component:
    """The train component on digits, with checkpoints."""

    def __init__(self, directory: Path, dataset: Path) -> None:
        self.directory = directory
        self.model = directory / "model"
        outputs = {"model": ("system.Model", self.model), "metrics": ("system.Metrics", directory / "metrics")}
        self.input = {
            "inputs": {
                "parameterValues": PARAMETERS,
                "artifacts": {"dataset": artifact("dataset", "system.Dataset", dataset)},
            },
            "outputs": {
                "artifacts": {name: artifact(name, schema, path) for name, (schema, path) in outputs.items()},
                "outputFile": str(directory / "executor_output.json"),
            },
        }

    def start(self) -> subprocess.Popen[str]:
        container = component("train").component_spec.implementation.container
        words = [word.replace("{{$}}", json.dumps(self.input)) for word in (*container.command, *container.args)]
        checkpoints = str(self.directory / "checkpoints")
        return subprocess.Popen(
            words,
            cwd=self.directory,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "KONDENSE_CHECKPOINTS": checkpoints,
                VARIABLE: "1",  # a candidate's step: SIGTERM is not its failure
                "OMP_NUM_THREADS": "1",
                # The component's shell calls `python3`, which must be the interpreter of this test.
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "TMPDIR": str(self.directory),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def python_of(shell: int) -> int:
    """Return the process id of the executor that the component's shell has started."""
    (child,) = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
    return int(child)


@pytest.mark.parametrize("whom", ["the executor", "all processes"])
def test_sigterm_saves_and_the_same_step_goes_on(tmp_path: Path, digits16_dir: Path, whom: str) -> None:
    component = Component(tmp_path, digits16_dir)
    with component.start() as process:
        assert process.stdout
        deadline = time.monotonic() + 300
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "epoch 1/" in line:
                break
            assert time.monotonic() < deadline
        assert "epoch 1/" in "".join(lines[-1:]), "".join(lines)
        if whom == "the executor":
            os.kill(python_of(process.pid), signal.SIGTERM)
        else:
            os.killpg(process.pid, signal.SIGTERM)
        rest = process.stdout.read()  # until the last of them has ended
        code = process.wait()
    # The shell that KFP puts around a component dies of the signal itself when it gets it.
    assert code in ((143,) if whom == "the executor" else (143, -signal.SIGTERM)), rest
    assert not component.model.exists()
    assert any((tmp_path / "checkpoints").rglob("*"))
    with component.start() as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "resumed at epoch" in output
    assert load_model(component.model).network.name == "lenet300"
