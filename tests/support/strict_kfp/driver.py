"""The drivers: what a task gets, in the words in which the real ones say it to kfp's executor."""

import dataclasses
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.strict_kfp.conditions import holds
from tests.support.strict_kfp.graph import Node, Output
from tests.support.strict_kfp.lineage import INPUT, OUTPUT, Artifact, Execution, Lineage
from tests.support.strict_kfp.values import as_type, wire

ROOT = "minio://mlpipeline/v2/artifacts"
LOGS = "executor-logs"  # an output that every task has
CREATED = "2026-11-24T04:00:00Z"


class DriverError(ValueError):
    """A driver ends with an error; the task never starts."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a run is called."""

    pipeline: str
    id: str

    @property
    def uri(self) -> str:
        """Where the run's artifacts lie."""
        return f"{ROOT}/{self.pipeline}/{self.id}"

    def fill_in(self, value: Any, node: Node, graph: Execution) -> Any:
        """Return a constant, or what it stands for if it is one of the placeholders, the whole of it."""
        placeholders = {
            "{{$.pipeline_job_name}}": f"{self.pipeline} of now",
            "{{$.pipeline_job_resource_name}}": f"{self.pipeline}-abcde",
            "{{$.pipeline_job_uuid}}": self.id,
            "{{$.pipeline_task_name}}": node.name,
            "{{$.pipeline_task_uuid}}": str(graph.id),
            "{{$.pipeline_job_create_time_utc}}": CREATED,
            "{{$.pipeline_job_schedule_time_utc}}": CREATED,
        }
        if isinstance(value, str) and "{{$.workspace_path}}" in value:
            raise NotImplementedError("workspaces are not supported here.")
        return placeholders.get(value, value) if isinstance(value, str) else value


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A task's inputs; ``typed`` are the artifacts that come with a type, which is empty."""

    parameters: Mapping[str, Any]
    artifacts: Mapping[str, Artifact]
    typed: frozenset[str]
    runs: bool  # what its condition says

    def message(self) -> dict[str, Any]:
        """Return them as the executor reads them."""
        artifacts = {}
        for name, artifact in self.artifacts.items():
            kind = {"type": {"instanceSchema": ""}} if name in self.typed else {}
            each = {"name": str(artifact.id), "uri": artifact.uri, **kind, "metadata": dict(artifact.metadata)}
            artifacts[name] = {"artifacts": [each]}
        found = {"parameterValues": wire(dict(self.parameters)), "artifacts": artifacts}
        return {key: value for key, value in found.items() if value}  # protobuf leaves out what is empty


class Driver:
    """Resolves the inputs of a run's tasks; ``executions`` are those of the tasks so far."""

    def __init__(self, lineage: Lineage, job: Job) -> None:
        self.lineage, self.job = lineage, job
        self.executions: dict[Node, Execution] = {}

    def start_root(self, root: Node, given: Mapping[str, Any]) -> None:
        """Take a run's parameters as the API server does.

        Raises:
            DriverError: one is missing, unknown or of another type.
        """
        declared = root.declared("inputs", "parameters")
        if unknown := sorted({*given} - {*declared}):
            raise DriverError(f"the pipeline has no parameter {', '.join(unknown)}.")
        values = {}
        for name, spec in declared.items():
            if name in given:
                values[name] = self._typed(name, given[name], spec["parameterType"], strict=True)
            elif "defaultValue" in spec:
                values[name] = spec["defaultValue"]
            elif spec.get("isOptional"):
                values[name] = None
            else:
                raise DriverError(f"parameter {name} has neither a value nor a default.")
        self.executions[root] = self.lineage.begin("root", values, {})

    def start(self, node: Node) -> Inputs:
        """Resolve a task's inputs and create its execution."""
        parameters = self._parameters(node)
        artifacts, typed = {}, set()
        for name, reference in node.artifact_inputs.items():
            artifacts[name] = self._artifact(node, name, reference)
            if "taskOutputArtifact" in reference:
                typed.add(name)
        condition = node.task.get("triggerPolicy", {}).get("condition", "")
        inputs = Inputs(parameters, artifacts, frozenset(typed), not condition or holds(condition, parameters))
        connected = {name: [artifact] for name, artifact in artifacts.items()}
        self.executions[node] = self.lineage.begin(node.path, parameters, connected)
        return inputs

    def outputs(self, node: Node, directory: Path) -> dict[str, Any]:
        """Return where a task is to write, as the executor reads it.

        Args:
            node: a container's task.
            directory: stands for the root of the container's file system.
        """
        uri = f"{self.job.uri}/{node.name}/{uuid.uuid4()}"
        declared = {**node.declared("outputs", "artifacts"), LOGS: {"artifactType": {"schemaTitle": "system.Artifact"}}}
        artifacts = {}
        for name, spec in declared.items():
            kind = {
                key: spec["artifactType"][key]
                for key in ("schemaTitle", "instanceSchema")
                if key in spec["artifactType"]
            }
            each = {"name": name, "uri": f"{uri}/{name}", "type": kind}
            if "metadata" in spec:
                each["metadata"] = wire(spec["metadata"])
            artifacts[name] = {"artifacts": [each]}
        parameters = {
            name: {"outputFile": str(directory / "tmp/kfp/outputs" / name)}
            for name in node.declared("outputs", "parameters")
        }
        found = {"artifacts": artifacts, "parameters": parameters}
        output = {"outputFile": f"{local_path(uri, directory)}/output_metadata.json"}
        return {key: value for key, value in found.items() if value} | output

    def _parameters(self, node: Node) -> dict[str, Any]:
        declared = node.declared("inputs", "parameters")
        values = {}
        if node.is_graph:
            for name, spec in declared.items():
                if name not in node.parameter_inputs and spec.get("isOptional"):
                    values[name] = spec.get("defaultValue")
        for name, reference in node.parameter_inputs.items():
            value = self._parameter(node, name, reference)
            if value is not None:
                values[name] = value
            elif not declared.get(name, {}).get("isOptional"):
                raise DriverError(f"task {node.path}: parameter {name!r} is null and not optional.")
        for name, spec in declared.items():
            if values.get(name) is not None:
                values[name] = self._typed(f"{node.path}.{name}", values[name], spec["parameterType"])
            elif name not in values and not spec.get("isOptional") and "defaultValue" not in spec:
                raise DriverError(f"task {node.path}: parameter {name!r} has neither a value nor a default.")
        return values

    def _parameter(self, node: Node, name: str, reference: Mapping[str, Any]) -> Any:
        if "parameterExpressionSelector" in reference:
            raise NotImplementedError(f"task {node.path}: parameter {name!r} selects by an expression.")
        assert node.parent
        graph = self.executions[node.parent]
        if "runtimeValue" in reference:
            return self.job.fill_in(reference["runtimeValue"]["constant"], node, graph)
        if source := reference.get("componentInputParameter"):
            if source not in graph.parameters:
                raise DriverError(f"task {node.path}: its graph has no parameter {source!r}.")
            return graph.parameters[source]
        source = reference["taskOutputParameter"]
        output = node.parent.child(source["producerTask"]).parameter(source["outputParameterKey"])
        return self._producer(node, output).outputs[output.key]

    def _artifact(self, node: Node, name: str, reference: Mapping[str, Any]) -> Artifact:
        assert node.parent
        if source := reference.get("componentInputArtifact"):
            found = self.lineage.connected(self.executions[node.parent], INPUT)
            if source not in found:  # also when it is optional there and was left out
                raise DriverError(f"task {node.path}: its graph has no input artifact {source!r} for {name!r}.")
            return found[source]
        output = node.origin(name)
        return self.lineage.connected(self._producer(node, output), OUTPUT)[output.key]

    def _producer(self, node: Node, output: Output) -> Execution:
        if output.node not in self.executions:
            raise DriverError(f"task {node.path} needs {output}, which was not made.")
        return self.executions[output.node]

    @staticmethod
    def _typed(name: str, value: Any, kind: str, *, strict: bool = False) -> Any:
        if strict and kind == "STRING" and not isinstance(value, str):
            raise DriverError(f"input parameter {name!r} must be a STRING, but got {value!r}.")
        try:
            return as_type(name, value, kind)
        except ValueError as error:
            raise DriverError(str(error)) from None


def local_path(uri: str, directory: Path) -> Path:
    """Return where an artifact lies in a container whose root is ``directory``."""
    scheme, _, rest = uri.partition("://")
    if scheme != "minio" or ".." in rest.split("/"):
        raise NotImplementedError(f"artifacts at {uri} are not supported here.")
    return directory / "minio" / rest
