"""The report as a KFP component: compiled, and run by kfp.local with every input it has."""

import json
import os
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl, local
from kondense.artifacts.comparison import COMPARED
from kondense.kfp import component

from tests.support.report_makers import RECIPES, make_evaluations, write_candidates

ROOT = Path(__file__).parents[2]


def pipeline_of(directories):
    @dsl.pipeline(name="report-alone")
    def pipeline(title: str = "", max_validation_drop: float = 0.01):
        candidates = {
            name.replace("-", "_"): dsl.importer(artifact_uri=str(directory), artifact_class=dsl.Model).output
            for name, directory in zip(RECIPES, directories, strict=True)
        }
        component("report")(title=title, max_validation_drop=max_validation_drop, **candidates)

    return pipeline


@pytest.fixture
def directories(tmp_path):
    return write_candidates(tmp_path / "candidates", make_evaluations())


def test_compiles_with_one_page_for_the_ui_and_descriptions_for_its_form(directories, tmp_path):
    compiler.Compiler().compile(pipeline_of(directories), str(tmp_path / "pipeline.yaml"))
    compiled = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())["components"]["comp-report"]
    outputs = {
        name: each["artifactType"]["schemaTitle"] for name, each in compiled["outputDefinitions"]["artifacts"].items()
    }
    assert outputs == {
        "report": "system.Artifact",
        "chosen": "system.Model",
        "html": "system.HTML",
        "metrics": "system.Metrics",
    }
    parameters = compiled["inputDefinitions"]["parameters"]
    assert parameters.keys() == {"title", "objective", "max_validation_drop", "note"}
    assert all(parameter["description"] for parameter in parameters.values())
    assert parameters["max_validation_drop"]["defaultValue"] == 0.01


def test_runs_under_kfp_local_and_the_page_is_the_html_artifact(directories, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    pipeline_of(directories)(title="A run of the component")
    (page,) = (tmp_path / "root").glob("*/report/html")
    written = page.parent / "report"
    assert page.read_bytes() == (written / "report.html").read_bytes()
    assert json.loads((written / "report.json").read_text())["title"] == "A run of the component"
    assert (page.parent / "chosen" / "model.json").read_bytes() == (directories[-1] / "model.json").read_bytes()
    logged = json.loads((page.parent / "executor_output.json").read_text())["artifacts"]["metrics"]["artifacts"][0]
    assert logged["metadata"]["bytes"] == 22_411
    assert {*logged["metadata"]} == {*COMPARED, "display_name"}
