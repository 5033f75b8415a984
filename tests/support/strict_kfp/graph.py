"""A compiled package as the tree of its tasks, and where every input of a task comes from.

The tree is that of the calls: a component that is used twice is two nodes. Loops and ``dsl.OneOf`` are refused, so
the tree is known before a run, and the checks that run nothing follow the same references as the driver does.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Spec = Mapping[str, Any]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
UNSUPPORTED = ("parameterIterator", "artifactIterator", "iteratorPolicy")


class Output(NamedTuple):
    """One output of a task that runs a container."""

    node: "Node"
    key: str

    def __str__(self) -> str:
        return f"{self.node.path}.{self.key}"


@dataclasses.dataclass(eq=False)
class Node:
    """One task: a container, or a graph with children.

    Attributes:
        name: the task's key in its graph.
        task: its PipelineTaskSpec; empty for the root.
        component: its ComponentSpec.
        parent: the graph that it belongs to; None for the root.
        children: the tasks of a graph by their keys.
    """

    name: str
    task: Spec
    component: Spec
    parent: "Node | None"
    children: dict[str, "Node"] = dataclasses.field(default_factory=dict)

    @property
    def path(self) -> str:
        """The names from the outermost graph's task to this one."""
        return f"{self.parent.path}/{self.name}" if self.parent and self.parent.parent else self.name

    @property
    def title(self) -> str:
        """The display name."""
        return self.task.get("taskInfo", {}).get("name", self.name)

    @property
    def is_graph(self) -> bool:
        """Whether it has tasks instead of a container."""
        return "dag" in self.component

    @property
    def artifact_inputs(self) -> Spec:
        """The references of its artifact inputs by the input's name."""
        return self.task.get("inputs", {}).get("artifacts", {})

    @property
    def parameter_inputs(self) -> Spec:
        """The references of its parameters by the parameter's name."""
        return self.task.get("inputs", {}).get("parameters", {})

    def declared(self, side: str, kind: str) -> Spec:
        """Return what the component declares: ``inputs`` or ``outputs``, ``parameters`` or ``artifacts``."""
        return self.component.get(f"{side[:-1]}Definitions", {}).get(kind, {})

    def child(self, name: str) -> "Node":
        """Return a task of this graph."""
        if name not in self.children:
            raise ValueError(f"{self.path or 'the root'} has no task {name!r}; it has {', '.join(self.children)}.")
        return self.children[name]

    def artifact(self, key: str) -> Output:
        """Return the container's output that the output ``key`` of this task is."""
        if self.is_graph:
            selectors = self.component["dag"].get("outputs", {}).get("artifacts", {})[key]["artifactSelectors"]
            if len(selectors) != 1:
                raise NotImplementedError(f"{self.path}.{key}: dsl.OneOf is not supported here.")
            return self.child(selectors[0]["producerSubtask"]).artifact(selectors[0]["outputArtifactKey"])
        return self._output("artifacts", key)

    def parameter(self, key: str) -> Output:
        """Return the container's output that the output parameter ``key`` of this task is."""
        if self.is_graph:
            source = self.component["dag"].get("outputs", {}).get("parameters", {})[key]
            if "valueFromParameter" not in source:
                raise NotImplementedError(f"{self.path}.{key}: dsl.OneOf is not supported here.")
            source = source["valueFromParameter"]
            return self.child(source["producerSubtask"]).parameter(source["outputParameterKey"])
        return self._output("parameters", key)

    def _output(self, kind: str, key: str) -> Output:
        if key not in self.declared("outputs", kind):
            raise ValueError(f"{self.path} declares no {key!r} among its output {kind}.")
        return Output(self, key)

    def origin(self, name: str) -> Output:
        """Return the container's output that an artifact input is, through all nesting."""
        reference = self.artifact_inputs[name]
        if self.parent is None:
            raise ValueError(f"the pipeline takes an artifact, {name}.")
        if "componentInputArtifact" in reference:
            return self.parent.origin(reference["componentInputArtifact"])
        source = reference["taskOutputArtifact"]
        return self.parent.child(source["producerTask"]).artifact(source["outputArtifactKey"])

    def walk(self) -> Iterator["Node"]:
        """Yield the tasks below this one, each graph before its tasks and each task after those it depends on."""
        for child in self.in_order():
            yield child
            yield from child.walk()

    def in_order(self) -> Iterator["Node"]:
        """Yield the tasks of this graph, each after those it depends on."""
        done: set[str] = set()
        while len(done) < len(self.children):
            ready = [child for child in self.children.values() if child.name not in done and child.waits_for() <= done]
            if not ready:
                raise ValueError(f"the tasks of {self.path or 'the root'} wait for each other.")
            for child in ready:
                yield child
                done.add(child.name)

    def waits_for(self) -> set[str]:
        """Return the tasks of the same graph that come before this one: those named, and those that give inputs."""
        references = (*self.artifact_inputs.values(), *self.parameter_inputs.values())
        sources = [each.get("taskOutputArtifact") or each.get("taskOutputParameter") for each in references]
        return {*self.task.get("dependentTasks", ()), *(each["producerTask"] for each in sources if each)}


class Package:
    """A compiled package: ``root`` is the tree of its tasks."""

    def __init__(self, path: Path) -> None:
        self.spec, *platform = yaml.load_all(path.read_text(encoding="utf-8"), Loader=LOADER)
        self.name: str = self.spec["pipelineInfo"]["name"]
        self.root = self._node("", {}, self.spec["root"], None)
        self._executors = self.spec["deploymentSpec"]["executors"]
        kubernetes = platform[0]["platforms"]["kubernetes"] if platform else {}
        self._platform = kubernetes.get("deploymentSpec", {}).get("executors", {})

    def _node(self, name: str, task: Spec, component: Spec, parent: Node | None) -> Node:
        if found := [each for each in UNSUPPORTED if each in task]:
            raise NotImplementedError(f"task {name}: {found[0]} is not supported here.")
        if task.get("triggerPolicy", {}).get("strategy", "ALL_UPSTREAM_TASKS_SUCCEEDED") != (
            "ALL_UPSTREAM_TASKS_SUCCEEDED"
        ):
            raise NotImplementedError(f"task {name}: exit handlers are not supported here.")
        node = Node(name, task, component, parent)
        for key, each in component.get("dag", {}).get("tasks", {}).items():
            node.children[key] = self._node(key, each, self.spec["components"][each["componentRef"]["name"]], node)
        return node

    @property
    def containers(self) -> list[Node]:
        """The tasks that run a container, each after those it depends on."""
        return [node for node in self.root.walk() if not node.is_graph]

    def container(self, node: Node) -> Spec:
        """Return a task's container: its image, command, arguments and variables."""
        return self._executors[node.component["executorLabel"]]["container"]

    def on_kubernetes(self, node: Node) -> Spec:
        """Return what the package asks of Kubernetes for a task's pod."""
        return self._platform.get(node.component["executorLabel"], {})


def shared_inputs(package: Package, *, cached: bool = False) -> list[str]:
    """Return a line for each task, graph or container, that gets one artifact under two input names.

    Args:
        package: the package.
        cached: also find what the cache makes one artifact: two tasks that do the same with the same inputs get the
            outputs of one, in the second run at the latest.
    """
    lines = []
    known: dict[Node, str] = {}
    for node in package.root.walk():
        names: dict[Any, str] = {}
        for name in node.artifact_inputs:
            origin = node.origin(name)
            same = (identity(package, origin.node, known), origin.key) if cached else origin
            if same in names:
                lines.append(f"{node.path} gets {origin} as {names[same]} and as {name}")
            names[same] = name
    return lines


def identity(package: Package, node: Node, known: dict[Node, str]) -> str:
    """Return what is equal for tasks that the cache takes for one: command and inputs, through all nesting."""
    if not node.task.get("cachingOptions", {}).get("enableCache"):
        return node.path
    if node not in known:
        container = package.container(node)
        artifacts = {name: node.origin(name) for name in node.artifact_inputs}
        parts = [
            node.component.get("outputDefinitions"),
            [container.get(key) for key in ("image", "command", "args")],
            {name: [identity(package, each.node, known), each.key] for name, each in artifacts.items()},
            {name: _value(package, node, name, known) for name in node.parameter_inputs},
        ]
        known[node] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return known[node]


def _value(package: Package, node: Node, name: str, known: dict[Node, str]) -> Any:
    """Return what tells whether two parameters have one value: a constant, a pipeline's parameter, a task's output."""
    assert node.parent
    reference = node.parameter_inputs.get(name)
    if reference is None:  # a graph's parameter that its caller leaves out
        return node.declared("inputs", "parameters")[name].get("defaultValue")
    if source := reference.get("componentInputParameter"):
        return _value(package, node.parent, source, known) if node.parent.parent else {"parameter": source}
    if source := reference.get("taskOutputParameter"):
        output = node.parent.child(source["producerTask"]).parameter(source["outputParameterKey"])
        return [identity(package, output.node, known), output.key]
    return reference
