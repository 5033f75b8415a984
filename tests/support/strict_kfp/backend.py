"""A stand-in for KFP's backend that refuses what the real one refuses: drivers, launchers, metadata and cache.

Written after kubeflow/pipelines at tag 2.17.0 (backend/src/v2: driver, component, metadata). Steps run one after
another, once; loops, exit handlers, ``dsl.OneOf``, importers, container components and workspaces are refused.
"""

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.strict_kfp.driver import LOGS, Driver, Inputs, Job
from tests.support.strict_kfp.fork_server import ForkServer
from tests.support.strict_kfp.graph import Node, Package
from tests.support.strict_kfp.launcher import Launcher, StepError, each_artifact, read
from tests.support.strict_kfp.lineage import OUTPUT, Execution, Lineage, LineageError

__all__ = ["Backend", "Run", "StepError"]


@dataclasses.dataclass(frozen=True)
class Step:
    """A task that has run, or whose outputs the cache had.

    Attributes:
        message: its ExecutorInput; without outputs if the cache had them.
        outputs: where its artifacts lie, by name.
        metadata: of its artifacts, as the store has it.
        parameters: its output parameters.
        log: what it said.
        cached: whether it did not run.
    """

    message: Mapping[str, Any]
    outputs: Mapping[str, Path]
    metadata: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, Any]
    log: str
    cached: bool


class Backend:
    """One cluster: what its runs share.

    Args:
        directory: gets the object store and the steps' directories.
        server: runs the steps.
        secrets: those of the namespace, by name and key.
        environment: further variables of all steps, such as where a cluster is.
    """

    def __init__(
        self,
        directory: Path,
        server: ForkServer,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.server = directory, server
        self.secrets, self.environment = secrets or {}, environment or {}
        self.lineage = Lineage()
        self.cache: dict[str, Execution] = {}

    def run(self, package: Path, parameters: Mapping[str, Any] | None = None) -> dict[str, Step]:
        """Run a compiled package to its end and return its steps by their display names.

        Raises:
            StepError: a step failed, or wrote what the launcher does not take.
            LineageError: the metadata store refused a task's inputs or outputs.
            DriverError: a task's inputs could not be resolved.
        """
        run = Run(self, Package(package))
        run.driver.start_root(run.package.root, parameters or {})
        run.run_graph(run.package.root)
        return run.steps


class Run:
    """One run of a package."""

    def __init__(self, backend: Backend, package: Package) -> None:
        self.backend, self.package = backend, package
        self.job = Job(package.name, str(uuid.uuid4()))
        self.driver = Driver(backend.lineage, self.job)
        bucket = backend.directory / "bucket"
        self.launcher = Launcher(package, bucket, backend.server, backend.secrets, backend.environment)
        self.steps: dict[str, Step] = {}
        self.skipped: set[Node] = set()

    def run_graph(self, graph: Node) -> None:
        """Run the tasks of a graph; a task that waits for one that did not run does not run either."""
        for node in graph.in_order():
            if any(graph.child(name) in self.skipped for name in node.waits_for()):
                self.skipped.add(node)
                continue
            inputs = self.driver.start(node)
            if not inputs.runs:
                self.skipped.add(node)
            elif node.is_graph:
                self.run_graph(node)
            else:
                self.steps[self._name(node)] = self._run_step(node, inputs)

    def _name(self, node: Node) -> str:
        return node.title if node.title not in self.steps else node.path

    def _run_step(self, node: Node, inputs: Inputs) -> Step:
        execution = self.driver.executions[node]
        caching = node.task.get("cachingOptions", {}).get("enableCache", False)
        fingerprint = self._fingerprint(node, inputs)
        if caching and (earlier := self.backend.cache.get(fingerprint)):
            found = self.backend.lineage.connected(earlier, OUTPUT)
            self.backend.lineage.publish(execution, earlier.outputs, found)
            return self._step({"inputs": inputs.message()}, execution, "", cached=True)
        directory = self.backend.directory / "pods" / self.job.id / node.path
        message = {"inputs": inputs.message(), "outputs": self.driver.outputs(node, directory)}
        parameters, said = self.launcher.run(node, message, directory)
        uploaded = self.launcher.upload(message["outputs"], said, directory)
        try:
            artifacts = {
                name: self.backend.lineage.record(
                    name, each["uri"], each["type"].get("schemaTitle", ""), each["metadata"]
                )
                for name, each in uploaded.items()
            }
        except LineageError as error:
            raise LineageError(f"task {node.path}: {error}") from None
        self.backend.lineage.publish(execution, parameters, artifacts)
        if caching:
            self.backend.cache[fingerprint] = execution
        return self._step(message, execution, read(directory / "log"), cached=False)

    def _step(self, message: Mapping[str, Any], execution: Execution, log: str, *, cached: bool) -> Step:
        artifacts = self.backend.lineage.connected(execution, OUTPUT)
        outputs = {name: self.launcher.key(each.uri) for name, each in artifacts.items() if name != LOGS}
        metadata = {name: each.metadata for name, each in artifacts.items()}
        return Step(message, outputs, metadata, execution.outputs, log, cached)

    def _fingerprint(self, node: Node, inputs: Inputs) -> str:
        """Return what the cache knows a task by: its inputs, what it writes and its command, not its variables."""
        container = self.package.container(node)
        artifacts = {name: each["name"] for name, each in each_artifact(inputs.message()).items()}
        parts = [
            node.component.get("outputDefinitions", {}),
            {key: container.get(key) for key in ("image", "command", "args")},
            artifacts,
            inputs.message().get("parameterValues", {}),
        ]
        return hashlib.sha256(json.dumps([self.package.name, parts], sort_keys=True).encode()).hexdigest()
