"""Every component of every package takes its inputs from kfp's executor in the form in which KFP's driver gives them.

The source is the package's, the executor is kfp's. The stage is replaced by one that notes what it gets: torch is
not needed for that.
"""

import dataclasses
import sys
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kfp.dsl import executor, utils
from kfp.dsl.types import artifact_types
from kondense.stages import STAGES
from kondense_pipelines.graphs.candidates import read_plan
from kondense_pipelines.graphs.compile import compile_all
from kondense_pipelines.graphs.parameters import resolve

from tests.support.strict_kfp.driver import Driver, Job
from tests.support.strict_kfp.graph import Node, Package
from tests.support.strict_kfp.lineage import Lineage
from tests.support.strict_kfp.values import check_input, wire

pytestmark = pytest.mark.usefixtures("quick_yaml")

COMPONENTS = sorted(STAGES.components())
METADATA = {"display_name": "x", "store_session_info": "{}", "accuracy": 1, "sizes": {"list": [1, 2.5]}}
TYPES = {"driver": {"type": {"instanceSchema": ""}}, "graph": {}}  # from a task beside it, through the graph around it


@dataclasses.dataclass
class Component:
    """A component as the packages have it."""

    name: str
    source: str
    node: Node

    @property
    def artifacts(self) -> Mapping[str, Any]:
        return self.node.declared("inputs", "artifacts")

    @property
    def required(self) -> set[str]:
        return {name for name, spec in self.artifacts.items() if not spec.get("isOptional")}

    @property
    def defaults(self) -> dict[str, Any]:
        declared = self.node.declared("inputs", "parameters")
        return {name: spec["defaultValue"] for name, spec in declared.items() if "defaultValue" in spec}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Package]:
    configs = resolve("quick")
    recipes = ["prune > distill > quantize:qat", "distill > prune:magnitude", "quantize:weight_only"]
    paths = compile_all(
        configs, tmp_path_factory.mktemp("all"), only=("compress",), plan=read_plan(configs, None, recipes)
    )
    few = read_plan(configs, "sparse-packed")
    paths += compile_all(configs, tmp_path_factory.mktemp("few"), only=("search",), plan=few)
    configs = resolve("quick", settings=["train_job.nodes=2"])
    paths += compile_all(configs, tmp_path_factory.mktemp("nodes"), only=("refresh",), plan=few)
    return [Package(path) for path in paths]


@pytest.fixture(scope="module")
def components(packages: list[Package]) -> dict[str, Component]:
    """The components by name; each has one source in all packages."""
    found: dict[str, Component] = {}
    for package in packages:
        for node in package.containers:
            container = package.container(node)
            name, source = container["args"][-1], container["command"][-1]
            each = found.setdefault(name, Component(name, source, node))
            assert each.source == source
            assert each.node.declared("inputs", "artifacts") == node.declared("inputs", "artifacts")
    return found


class Reached(Exception):  # noqa: N818 -- it ends the component where its stage begins
    """What a stage was called with."""

    def __init__(self, config: Any, directories: Mapping[str, Any]) -> None:
        super().__init__(config, directories)
        self.config, self.directories = config, directories


class Execute:
    """Runs components with noted stages; ``executor`` is the last one's."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.monkeypatch = directory, monkeypatch
        monkeypatch.setattr(artifact_types, "_MINIO_LOCAL_MOUNT_PREFIX", f"{directory}/minio/")

    def __call__(
        self, component: Component, given: Collection[str], parameters: Mapping[str, Any], kind: Mapping[str, Any]
    ) -> Reached:
        message = self.message(component, given, parameters, kind)
        check_input(message)
        self.note_stage(component.name)
        with pytest.raises(Reached) as reached:
            self.executor = executor.Executor(message, self.load(component))
            self.executor.execute()
        return reached.value

    def message(
        self, component: Component, given: Collection[str], parameters: Mapping[str, Any], kind: Mapping[str, Any]
    ) -> dict[str, Any]:
        artifacts = {}
        for number, name in enumerate(sorted(given), start=1):
            uri = f"minio://mlpipeline/v2/artifacts/p/r/t/{name}"
            each = {"name": str(number), "uri": uri, **kind, "metadata": METADATA}
            artifacts[name] = {"artifacts": [each]}
        inputs = {"artifacts": artifacts, "parameterValues": wire(dict(parameters))}
        inputs = {key: value for key, value in inputs.items() if value}
        outputs = Driver(Lineage(), Job("p", "r")).outputs(component.node, self.directory)
        return {"inputs": inputs, "outputs": outputs}

    def load(self, component: Component) -> Callable[..., Any]:
        (self.directory / "ephemeral_component.py").write_text(component.source)
        module = utils.load_module("ephemeral_component", str(self.directory))
        return getattr(module, component.name)

    def note_stage(self, name: str) -> None:
        def run(config: Any, **directories: Any) -> None:
            raise Reached(config, directories)

        stage = ModuleType(f"kondense.{name}.stage")
        stage.__dict__.update(run=run)
        self.monkeypatch.setitem(sys.modules, stage.__name__, stage)


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execute:
    return Execute(tmp_path, monkeypatch)


def check_types(config: Any) -> None:
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        kind = hints[field.name]
        assert type(getattr(config, field.name)) is (typing.get_origin(kind) or kind), field.name


def check_artifacts(execute: Execute, component: Component, given: Collection[str], reached: Reached) -> None:
    for side, found in (("inputs", execute.executor.input_artifacts), ("outputs", execute.executor.output_artifacts)):
        declared = component.node.declared(side, "artifacts")
        assert {*found} - {"executor-logs"} == ({*given} if side == "inputs" else {*declared})
        for name, spec in declared.items():
            if name in found:
                assert type(found[name]).schema_title == spec["artifactType"]["schemaTitle"], name
    directories = [each if isinstance(each, list) else [each] for each in reached.directories.values()]
    paths = [path for each in directories for path in each if path]
    used = {path.name for path in paths}
    assert {*given} <= used
    assert not ({*component.artifacts} - {*given}) & used
    for path in paths:
        assert str(path).startswith(f"{execute.directory}/minio/mlpipeline/v2/artifacts/"), path


def test_the_packages_have_every_component(components: dict[str, Component]) -> None:
    assert sorted(components) == COMPONENTS


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", COMPONENTS)
def test_artifacts_given_and_left_out(name: str, kind: str, components: dict[str, Component], execute: Execute) -> None:
    component = components[name]
    optional = [{each} for each in sorted({*component.artifacts} - component.required)]
    for more in [set(), *optional, {*component.artifacts}]:
        given = component.required | more
        check_artifacts(execute, component, given, execute(component, given, component.defaults, TYPES[kind]))


@pytest.mark.parametrize("name", COMPONENTS)
def test_parameters_left_out_get_the_configs_defaults(
    name: str, components: dict[str, Component], execute: Execute
) -> None:
    component = components[name]
    assert {*component.defaults} == {*component.node.declared("inputs", "parameters")}
    configs = [execute(component, component.required, given, {}).config for given in ({}, component.defaults)]
    default = STAGES[name].config_class()
    if name in ("katib_search", "train_job"):  # they take where the data set lies from their input
        default = dataclasses.replace(default, dataset_uri="minio://mlpipeline/v2/artifacts/p/r/t/dataset")
    assert configs == [default, default]
    for config in configs:
        check_types(config)


@pytest.mark.parametrize("name", COMPONENTS)
def test_whole_numbers_come_as_ints_and_as_floats(
    name: str, components: dict[str, Component], execute: Execute
) -> None:
    component = components[name]
    kinds = {key: spec["parameterType"] for key, spec in component.node.declared("inputs", "parameters").items()}
    whole = {key: value for key, value in component.defaults.items() if kinds[key].startswith("NUMBER")}
    whole = {key: value for key, value in whole.items() if float(value).is_integer()}
    message = execute.message(component, component.required, whole, {})
    assert all(type(value) is int for value in message["inputs"].get("parameterValues", {}).values())
    config = execute(component, component.required, whole, {}).config
    check_types(config)
    for key, value in whole.items():
        assert getattr(config, key, value) == value


def test_every_task_gets_what_it_declares(packages: list[Package]) -> None:
    for package in packages:
        for node in package.containers:
            declared = node.declared("inputs", "artifacts")
            assert {*node.artifact_inputs} <= {*declared}, node.path
            required = {name for name, spec in declared.items() if not spec.get("isOptional")}
            assert required <= {*node.artifact_inputs}, node.path
            for name, spec in declared.items():
                if name in node.artifact_inputs:
                    origin = node.origin(name)
                    made = origin.node.declared("outputs", "artifacts")[origin.key]["artifactType"]
                    assert spec["artifactType"]["schemaTitle"] in (made["schemaTitle"], "system.Artifact"), node.path
