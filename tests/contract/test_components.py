"""The components are what the Configs and the stages' functions say, in the form that a package has."""

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from kondense.config import Config, option
from kondense.kfp import component, source
from kondense.prune.config import PruneConfig
from kondense.stages import STAGES, Artifact, Stage, load
from kondense.train.config import TrainConfig

KINDS = {int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", str: "STRING", bool: "BOOLEAN"}
COMPONENTS = STAGES.components()
# Inputs that are no fields of a Config: type and default.
PROFILE = {"profile": ("STRING", "quick"), "step": ("STRING", "")}
STRUCTURES = {name: ("STRUCT", {}) for name in ("experiment", "settings", "resources")} | {"space": ("LIST", [])}
FURTHER = {**dict.fromkeys(("train", "train_job", "prune", "distill"), PROFILE), "katib_search": STRUCTURES}
TEXTS = {"gpus", "accelerator", "cpu", "memory", "shared_memory", "node_selector", "tolerations"}  # of STRUCTURES


@dataclasses.dataclass(frozen=True)
class LongerConfig(PruneConfig):
    """The parameters of prune and one more."""

    patience: int = option(3, 'epochs without "gain", as in C:\\temp', interval="[1, inf)")


def compiled(made: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a component and its container as a package has them."""
    spec = MessageToDict(made.pipeline_spec)
    (content,), (executor,) = spec["components"].values(), spec["deploymentSpec"]["executors"].values()
    return content, executor["container"]


def check_field(field: dataclasses.Field[Any], kind: type, parameter: dict[str, Any]) -> None:
    assert parameter["parameterType"] == KINDS[kind], field.name
    assert type(field.default)(parameter["defaultValue"]) == field.default, field.name
    assert parameter["isOptional"], field.name
    assert parameter["description"].startswith(field.metadata["description"]), field.name
    assert field.metadata["interval"] in parameter["description"], field.name
    assert all(str(choice) in parameter["description"] for choice in field.metadata["choices"]), field.name


@pytest.mark.parametrize("stage", COMPONENTS)
def test_a_package_has_every_field_with_type_default_range_and_description(stage: str) -> None:
    parameters = compiled(component(stage))[0]["inputDefinitions"]["parameters"]
    config = STAGES[stage].config_class
    hints, further = typing.get_type_hints(config), FURTHER.get(stage, {})
    for name, (kind, default) in further.items():
        described = parameters.pop(name)
        assert (described["parameterType"], described["defaultValue"]) == (kind, default), name
        assert described["description"], name
    hidden = {*STRUCTURES, *TEXTS} if stage == "katib_search" else set()
    assert set(parameters) == {field.name for field in dataclasses.fields(config)} - hidden
    for field in dataclasses.fields(config):
        if field.name in parameters:
            check_field(field, hints[field.name], parameters[field.name])


@pytest.mark.parametrize("stage", STAGES)
def test_the_table_has_the_directories_of_the_function(stage: str) -> None:
    config, *directories = inspect.signature(load(STAGES[stage].run)).parameters.values()
    assert config.annotation is STAGES[stage].config_class
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in directories)
    optional = {each.name: each.default is not inspect.Parameter.empty for each in directories}
    assert {each.directory: each.optional for each in STAGES[stage].directories} == optional
    assert [each.name for each in directories if each.name.endswith("_dirs")] == [
        each.directory for each in STAGES[stage].directories if each.several
    ]


@pytest.mark.parametrize("stage", COMPONENTS)
def test_a_package_has_the_artifacts_of_the_table(stage: str) -> None:
    content, container = compiled(component(stage))
    for side, artifacts in (("input", STAGES[stage].inputs), ("output", STAGES[stage].outputs)):
        expected = {name: (each.type, optional) for each in artifacts for name, optional in each.names.items()}
        declared = content.get(f"{side}Definitions", {}).get("artifacts", {})
        assert {
            name: (each["artifactType"]["schemaTitle"].removeprefix("system."), each.get("isOptional", False))
            for name, each in declared.items()
        } == expected
    assert "pip install" not in " ".join(container["command"])


def test_a_search_returns_parameters_of_the_training() -> None:
    returned = dict(STAGES["katib_search"].returns)
    assert returned.pop("trial") is str
    hints = typing.get_type_hints(TrainConfig)
    assert returned == {name: hints[name] for name in returned}
    declared = compiled(component("katib_search"))[0]["outputDefinitions"]["parameters"]
    assert {name: each["parameterType"] for name, each in declared.items()} == {
        name: KINDS[kind] for name, kind in STAGES["katib_search"].returns.items()
    }


def test_metrics_are_logged_where_runs_are_compared_and_nowhere_else() -> None:
    logged = [name for name in COMPONENTS if "Metrics" in {each.type for each in STAGES[name].outputs}]
    assert logged == ["evaluate", "report"]


def test_one_more_field_of_a_config_is_in_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    longer = dataclasses.replace(STAGES["prune"], name="longer", config=f"{__name__}:LongerConfig")
    monkeypatch.setitem(STAGES._built_in, "longer", longer)
    parameters = compiled(component("longer"))[0]["inputDefinitions"]["parameters"]
    before = compiled(component("prune"))[0]["inputDefinitions"]["parameters"]
    assert parameters.pop("patience") == {
        "parameterType": "NUMBER_INTEGER",
        "defaultValue": 3.0,
        "isOptional": True,
        "description": 'epochs without "gain", as in C:\\temp (in [1, inf))',
    }
    assert parameters == before


def test_the_shipped_source_is_short_and_can_be_read() -> None:
    function = component("prune").python_func
    assert inspect.getsource(function) == source(STAGES["prune"])
    body = inspect.getsource(function).rpartition('"""')[2]
    assert body.split("\n\n") == [
        "\n    from kondense.kfp import run_component",
        '    return run_component("prune", locals())\n',
    ]
    program = compiled(component("prune"))[1]["command"][-1]
    assert inspect.getsource(function) in program


def test_an_output_of_one_value_and_none() -> None:
    stage = Stage("none", config="", run="", summary="", outputs=(Artifact("a", "Artifact"),))
    assert stage.directories[0].directory == "a_dir"
    assert typing.get_type_hints(component("champion").python_func)["return"] is bool
    assert typing.get_type_hints(component("train").python_func)["return"] is type(None)


def test_every_folder_with_a_stage_is_in_the_table() -> None:
    root = Path(inspect.getfile(Config)).parent
    assert {path.parent.name for path in root.glob("*/stage.py")} == set(STAGES)
