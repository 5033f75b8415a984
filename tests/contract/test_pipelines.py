"""The pipelines compile, and their parameters are those of the Configs."""

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from kondense.katib.yaml_text import read_documents
from kondense.profiles import AS_PROFILE, PROFILES, settled
from kondense_pipelines.graphs.candidates import Plan, read_plan
from kondense_pipelines.graphs.compile import compile_compress, task_names
from kondense_pipelines.graphs.compress import CANDIDATES, cluster_task_names, make_compress
from kondense_pipelines.graphs.parameters import CURATED, PROFILE, STEPS, apply, resolve, split, step_defaults

pytestmark = pytest.mark.usefixtures("quick_yaml")

# The step whose Config a task runs with.
STEP_OF_TASK = {
    "data prep": "data_prep",
    "train teacher": "train",
    "prune": "prune",
    "prune weights": "prune_weights",
    "pack weights": "pack_weights",
    "distill": "distill",
    "report": "report",
    "publish": "publish",
    "verdict": "verdict",
}


def spec_of(package: Path) -> dict[str, Any]:
    return next(yaml.safe_load_all(package.read_text()))


def tasks_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the tasks by display name, those of the graph within included and that graph itself left out."""
    dags = [spec["root"]["dag"], *(each["dag"] for each in spec["components"].values() if "dag" in each)]
    tasks = {task["taskInfo"]["name"]: task for dag in dags for task in dag["tasks"].values()}
    return {name: task for name, task in tasks.items() if name != CANDIDATES}


def step_of(task: str) -> str:
    return STEP_OF_TASK.get(task) or task.partition(" ")[0]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_compress(resolve("quick"), tmp_path_factory.mktemp("compiled"))[0]


def test_every_stage_is_its_own_task_with_a_name(compiled: Path) -> None:
    assert task_names(compiled) == sorted(cluster_task_names(Plan()))


def test_nothing_is_installed_at_run_time_and_one_image_runs_all(compiled: Path) -> None:
    executors = spec_of(compiled)["deploymentSpec"]["executors"].values()
    assert {each["container"]["image"] for each in executors} == {"kondense/stage-python:0.1.0"}
    assert not any("pip install" in " ".join(each["container"]["command"]) for each in executors)


def test_every_field_of_every_step_reaches_its_tasks(compiled: Path) -> None:
    for name, task in tasks_of(spec_of(compiled)).items():
        step = step_of(name)
        fields = {field.name for field in dataclasses.fields(STEPS[step].config)}
        profiled = {PROFILE, "step"} if step in PROFILES["quick"] else set()
        assert set(task["inputs"]["parameters"]) == fields | profiled, name
        if profiled:
            assert task["inputs"]["parameters"]["step"]["runtimeValue"]["constant"] == step
            assert task["inputs"]["parameters"][PROFILE]["componentInputParameter"] == PROFILE


def test_a_bound_field_is_a_constant_of_its_tasks(tmp_path: Path) -> None:
    settings = ["prune.momentum=0.5", "train.epochs=2", "pack_weights.seed=3", "distill.epochs=9"]
    spec = spec_of(compile_compress(resolve("quick", {}, settings), tmp_path)[0])
    tasks = {name: task["inputs"]["parameters"] for name, task in tasks_of(spec).items()}
    assert tasks["prune"]["momentum"]["runtimeValue"]["constant"] == 0.5
    assert tasks["prune weights"]["momentum"]["runtimeValue"]["constant"] == 0.9
    assert tasks["train teacher"]["epochs"] == {"componentInputParameter": "train_epochs"}
    assert spec["root"]["inputDefinitions"]["parameters"]["train_epochs"]["defaultValue"] == 2
    assert tasks["pack weights"]["seed"]["runtimeValue"]["constant"] == 3
    # What was asked for is not the profile's any more; the rest is.
    assert tasks["distill"]["epochs"]["runtimeValue"]["constant"] == 9
    assert tasks["prune"]["epochs"]["runtimeValue"]["constant"] == AS_PROFILE


def test_a_text_that_looks_like_a_number_stays_a_text_for_the_server(tmp_path: Path) -> None:
    """kfp writes 1e-1 and y without quotes; the server's Go reads a number and a truth value."""
    settings = ["data_prep.mean=1e-1", "data_prep.std=5e-1"]
    for package in compile_compress(resolve("quick", {}, settings), tmp_path, kubernetes=True):
        text = package.read_text()
        assert "constant: '1e-1'" in text and "constant: '5e-1'" in text
        assert list(yaml.safe_load_all(text)) == read_documents(text, most=10**6)


def test_what_is_set_is_no_profiles_even_where_it_is_the_same(tmp_path: Path) -> None:
    settings = ["prune.epochs=4", "train.epochs=8"]  # the quick profile's own numbers
    package = compile_compress(resolve("quick", {}, settings), tmp_path, settings=settings)[0]
    given = tasks_of(spec_of(package))["prune"]["inputs"]["parameters"]
    assert given["epochs"]["runtimeValue"]["constant"] == 4
    assert given["steps"]["runtimeValue"]["constant"] == AS_PROFILE
    assert spec_of(package)["root"]["inputDefinitions"]["parameters"]["train_epochs"]["defaultValue"] == 8


def test_the_run_form_has_a_default_and_a_description_for_everything(compiled: Path) -> None:
    parameters = spec_of(compiled)["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == {*CURATED, PROFILE}
    for name, parameter in parameters.items():
        assert parameter["description"], name
        assert "defaultValue" in parameter, name


def test_curated_names_types_and_defaults_are_those_of_the_configs() -> None:
    arguments, _ = split(resolve("quick"))
    signature = inspect.signature(make_compress(arguments).pipeline_func).parameters
    assert list(signature) == [*CURATED, PROFILE]
    for name, targets in CURATED.items():
        for step, field in targets:
            assert signature[name].annotation is typing.get_type_hints(STEPS[step].config)[field], name
            assert signature[name].default == step_defaults(step)[field], name


def test_splitting_and_applying_gives_the_configs_back() -> None:
    settings = ["prune.seed=3", "prune_weights.momentum=0.8", "train.learning_rate=0.1", "publish.max_test_drop=0.5"]
    for profile in PROFILES:
        configs = resolve(profile, {"dataset": "digits", "seed": 7}, settings)
        for left_to in (None, profile):
            arguments, bound = split(configs, left_to)
            values = apply(arguments)
            for step, fields in bound.items():
                values[step].update(fields)
            for step, config in configs.items():
                expected = {name: value for name, value in config.to_dict().items() if name not in STEPS[step].owned}
                assert settled(values[step], arguments[PROFILE], step) == expected
            assert (AS_PROFILE in values["prune"].values()) == bool(left_to)


def test_a_run_that_chooses_another_profile_gets_its_values(tmp_path: Path) -> None:
    arguments, bound = split(resolve("quick", {}, ["distill.epochs=9"]), "quick")
    values = apply(arguments)
    for step, fields in bound.items():
        values[step].update(fields)
    for step in PROFILES["full"]:
        chosen, expected = settled(values[step], "full", step), resolve("full")[step].to_dict()
        assert chosen["epochs"] == (9 if step == "distill" else expected["epochs"])
        assert chosen.get("steps") == expected.get("steps")


def test_profiles_override_fields_that_exist() -> None:
    for profile, steps in PROFILES.items():
        for step, fields in steps.items():
            assert set(fields) <= set(step_defaults(step)), profile
            # A run's form may choose any profile, so all of them set the same fields, and numbers above -1.
            assert set(fields) == set(PROFILES["quick"][step]), profile
            assert all(value > AS_PROFILE for value in fields.values())


def test_kubernetes_objects_name_pipeline_and_version(tmp_path: Path) -> None:
    _, manifest = compile_compress(resolve("quick"), tmp_path, kubernetes=True, namespace="team")
    pipeline, version = yaml.safe_load_all(manifest.read_text())
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == "compress"
    assert version["metadata"]["namespace"] == "team"
    other = compile_compress(resolve("full"), tmp_path / "other", kubernetes=True)[1]
    assert list(yaml.safe_load_all(other.read_text()))[1]["metadata"]["name"] != version["metadata"]["name"]


def test_compiling_twice_gives_the_same_file(tmp_path: Path) -> None:
    first = compile_compress(resolve("quick"), tmp_path / "a")[0]
    assert first.read_bytes() == compile_compress(resolve("quick"), tmp_path / "b")[0].read_bytes()


def test_a_recipe_is_compiled_into_tasks_with_its_values_and_its_own_place_in_the_report(tmp_path: Path) -> None:
    configs = resolve("quick")
    plan = read_plan(configs, "quantized", ["own=prune:l1:0.5:steps=2 > distill > quantize:static:7"])
    package = compile_compress(configs, tmp_path, plan=plan)[0]
    assert task_names(package) == sorted(cluster_task_names(plan))
    inputs = {name: task["inputs"] for name, task in tasks_of(spec_of(package)).items() if "inputs" in task}
    first, second, third = (inputs[name] for name in ("prune 1 of own", "distill 2 of own", "quantize 3 of own"))
    constants = {
        key: value["runtimeValue"]["constant"] for key, value in first["parameters"].items() if "runtimeValue" in value
    }
    assert (constants["method"], constants["sparsity"], constants["steps"]) == ("l1", 0.5, 2)
    assert third["parameters"]["bits"]["runtimeValue"]["constant"] == 7
    trained = {"componentInputArtifact": "teacher"}
    assert first["artifacts"]["model"] == trained and "teacher" not in first["artifacts"]
    assert second["artifacts"]["teacher"] == trained
    assert second["artifacts"]["model"]["taskOutputArtifact"]["outputArtifactKey"] == "pruned"
    assert third["artifacts"]["model"]["taskOutputArtifact"]["outputArtifactKey"] == "student"
    assert set(inputs["report"]["artifacts"]) == {"teacher", "quantized", "recipe_1"}
