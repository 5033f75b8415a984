"""The examples of pipelines/examples run as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import kondense as kd
import pytest
from kondense.artifacts.report import read_report

EXAMPLES = Path(__file__).parents[2] / "pipelines" / "examples"


def test_the_notebook_of_an_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    cells = json.loads((EXAMPLES / "own_network.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    comparison = names["report"]
    assert isinstance(comparison, kd.Comparison)
    assert list(comparison.models) == ["teacher", "recipe-1", "recipe-2"]
    assert "<iframe" in comparison._repr_html_()
    assert comparison.evaluated["teacher"].metrics["test_accuracy"] > 0.8
    assert kd.load("small", allow_network="small_net").network == comparison.model.network
    assert Path("small.onnx").stat().st_size > 0


def test_a_run_with_recipes(tmp_path: Path) -> None:
    output = run("run_with_recipes.py", tmp_path, str(tmp_path / "out"))
    assert "tiny" in output
    assert [each["name"] for each in read_report(tmp_path / "out")["candidates"]] == ["small", "tiny"]


def test_an_own_score_and_suggester(tmp_path: Path) -> None:
    output = run("own_score_and_suggester.py", tmp_path)
    assert output.startswith("succeeded")
    assert "best value 0." in output


def run(example: str, directory: Path, *arguments: str) -> str:
    """Run an example in a directory of its own and return its standard output."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": search, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    result = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
