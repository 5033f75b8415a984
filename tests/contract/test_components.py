"""Every stage's component, command and Config say the same."""

import dataclasses
import importlib
import inspect
import typing
from pathlib import Path
from types import ModuleType

import pytest
from kfp import dsl
from kondense.cli import STAGES, stage_config
from kondense.katib_search.structures import RESOURCES
from kondense.networks.build import NETWORKS
from kondense.networks.names import BUILT_IN
from kondense.profiles import DEFAULT_PROFILE

SCALARS = (int, float, str, bool)
COMPONENTS = sorted(set(STAGES) - {"trial"})  # Katib starts trials, KFP does not
PROFILED = ("distill", "prune", "train")  # whose numbers a run's profile may give
STRUCTURES = ("experiment", "space", "settings", "resources")  # lists and maps of tune, which its Config has as texts
PROFILE = {"profile": (str, DEFAULT_PROFILE), "step": (str, "")}


def component_of(stage: str) -> typing.Callable[..., None]:
    module = importlib.import_module(f"kondense.{stage}.component")
    return getattr(module, stage).python_func


def stage_of(stage: str) -> ModuleType:
    return importlib.import_module(f"kondense.{stage}.stage")


@pytest.mark.parametrize("stage", COMPONENTS)
def test_parameters_are_the_config_fields_with_types_and_defaults(stage: str) -> None:
    parameters = inspect.signature(component_of(stage)).parameters.values()
    found = {each.name: (each.annotation, each.default) for each in parameters if each.annotation in SCALARS}
    hints = typing.get_type_hints(stage_config(stage))
    expected = {each.name: (hints[each.name], each.default) for each in dataclasses.fields(stage_config(stage))}
    if stage == "katib_search":
        expected = {name: each for name, each in expected.items() if name not in (*STRUCTURES, *RESOURCES)}
    assert found == expected | (PROFILE if stage in PROFILED else {})


def test_tunes_structures_are_maps_and_lists_and_stand_for_fields_of_its_config() -> None:
    parameters = inspect.signature(component_of("katib_search")).parameters
    found = {name: (parameters[name].annotation, parameters[name].default) for name in STRUCTURES}
    assert found == {"experiment": (dict, {}), "space": (list, []), "settings": (dict, {}), "resources": (dict, {})}
    fields = {each.name for each in dataclasses.fields(stage_config("katib_search"))}
    assert {*STRUCTURES, *RESOURCES} - fields == {"resources"}


@pytest.mark.parametrize("stage", sorted(set(COMPONENTS) - {"report"}))
def test_artifacts_are_the_directories_of_run(stage: str) -> None:
    parameters = inspect.signature(component_of(stage)).parameters.values()
    artifacts = {each.name for each in parameters if each.annotation not in (*SCALARS, dict, list)}
    directories = {name.removesuffix("_dir") for name in (*STAGES[stage].directories, *STAGES[stage].optional)}
    assert artifacts - {"metrics", "classification", "html"} == directories


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_knows_the_directories_of_run(stage: str) -> None:
    config, *directories = inspect.signature(stage_of(stage).run).parameters.values()
    assert config.annotation is stage_config(stage)
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in directories)
    required = [each.name for each in directories if each.default is inspect.Parameter.empty]
    assert required == list(STAGES[stage].directories)
    optional = [(each.name, each.default) for each in directories if each.default is not inspect.Parameter.empty]
    assert optional == [(name, None) for name in STAGES[stage].optional]


@pytest.mark.parametrize("stage", COMPONENTS)
def test_every_parameter_is_described(stage: str) -> None:
    module = importlib.import_module(f"kondense.{stage}.component")
    for field in dataclasses.fields(stage_config(stage)):
        assert field.metadata["description"]
    assert getattr(module, stage).description


def test_metrics_are_logged_where_runs_are_compared_and_nowhere_else() -> None:
    def logs(stage: str) -> bool:
        parameters = inspect.signature(component_of(stage)).parameters.values()
        return any(each.annotation == dsl.Output[dsl.Metrics] for each in parameters)

    assert [stage for stage in COMPONENTS if logs(stage)] == ["evaluate", "report"]


def test_every_component_is_a_stage() -> None:
    root = Path(importlib.import_module("kondense").__path__[0])
    assert {path.parent.name for path in root.glob("*/component.py")} == set(COMPONENTS)


def test_network_names_without_torch_are_those_of_the_registry() -> None:
    assert sorted(NETWORKS) == list(BUILT_IN)
