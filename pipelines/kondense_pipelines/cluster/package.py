"""A compiled pipeline: its parameters, the values of every task's inputs, and its requirements of a server."""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kondense.errors import InputError
from kondense.katib.yaml_text import read_file

MOST_VALUES = 1_000_000  # of a package; those of Kondense have some thousand
DIGITS = 10  # of a package's digest in names
PLACEHOLDER = "{{$.inputs"  # KFP replaces it by another input when a task starts

Spec = Mapping[str, Any]


class Known(NamedTuple):
    """An input's value that is known before a run, and the pipeline's parameter that sets it; empty for none."""

    value: Any
    parameter: str = ""


class ContainerTask(NamedTuple):
    """A task that runs a container.

    Attributes:
        title: its display name.
        function: the component's.
        declared: the names of its parameter inputs.
        known: those whose values are known before a run, by name.
    """

    title: str
    function: str
    declared: tuple[str, ...]
    known: Mapping[str, Known]


@dataclasses.dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        file: its path.
        spec: the pipeline, KFP's IR.
        platform: its settings for Kubernetes; empty for none.
    """

    file: Path
    spec: Spec
    platform: Spec

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.spec["pipelineInfo"]["name"])

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of its run form: type, default and description by name."""
        return dict(self.spec["root"].get("inputDefinitions", {}).get("parameters", {}))

    @property
    def digest(self) -> str:
        """The first digits of the SHA-256 of its content."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()[:DIGITS]

    def tasks(self, parameters: Mapping[str, Any]) -> Iterator[ContainerTask]:
        """Yield the tasks that run containers, of graphs within graphs too.

        Args:
            parameters: those of the run that differ from the package's defaults.
        """
        values = {
            name: Known(parameters[name] if name in parameters else each.get("defaultValue"), name)
            for name, each in self.parameters.items()
        }
        yield from self._tasks(self.spec["root"], values)

    def _tasks(self, graph: Spec, outer: Mapping[str, Known]) -> Iterator[ContainerTask]:
        for key, task in graph.get("dag", {}).get("tasks", {}).items():
            component = self.spec["components"][task["componentRef"]["name"]]
            references = task.get("inputs", {}).get("parameters", {})
            declared = component.get("inputDefinitions", {}).get("parameters", {})
            values = {name: _known(references.get(name), each, outer) for name, each in declared.items()}
            known = {name: value for name, value in values.items() if value}
            if "dag" in component:
                yield from self._tasks(component, known)
            else:
                title = task.get("taskInfo", {}).get("name", key)
                yield ContainerTask(title, self._function(component), tuple(declared), known)

    def _function(self, component: Spec) -> str:
        """Return the name of the component's function; empty for a container that has none."""
        executor = self.spec["deploymentSpec"]["executors"].get(component.get("executorLabel"), {})
        arguments = list(executor.get("container", {}).get("args", ()))
        flag = "--function_to_execute"
        return str(arguments[arguments.index(flag) + 1]) if flag in arguments[:-1] else ""

    def unknown_before(self) -> list[str]:
        """Return its features that Kubeflow Pipelines before 2.16 does not know, and therefore refuses."""
        components = [self.spec["root"], *self.spec.get("components", {}).values()]
        inputs = [each.get("inputDefinitions", {}).get("parameters", {}) for each in components]
        executors = self.platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors")
        features = []
        if any("literals" in each for parameters in inputs for each in parameters.values()):
            features.append("choices of parameters")
        if any("securityContext" in each for each in (executors or {}).values()):
            features.append("security contexts")
        return features

    def without_cache(self) -> "Package":
        """Return a copy in which no task reuses the results of an earlier run.

        kfp's own ``enable_caching=False`` reaches the outermost tasks only, and none of a registered version.
        """
        spec = copy.deepcopy(dict(self.spec))
        for component in (spec["root"], *spec.get("components", {}).values()):
            for task in component.get("dag", {}).get("tasks", {}).values():
                task["cachingOptions"] = {}
        return dataclasses.replace(self, spec=spec)

    def for_a_run(self) -> dict[str, Any]:
        """Return the ``pipeline_spec`` of a run that has no version."""
        spec = dict(self.spec)
        return {"pipeline_spec": spec, "platform_spec": dict(self.platform)} if self.platform else spec

    def as_text(self) -> str:
        """Return the content of a file: YAML documents, in the form of JSON."""
        return "\n---\n".join(json.dumps(each) for each in (self.spec, self.platform) if each)


def read_package(file: Path) -> Package:
    """Read a compiled pipeline.

    Raises:
        InputError: the file is not a compiled pipeline.
    """
    try:
        spec, *platforms = read_file(file, most=MOST_VALUES)
        package = Package(file, spec, platforms[0] if platforms else {})
        if not package.name or not isinstance(spec["root"], dict):
            raise KeyError("pipelineInfo")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{file} must be a compiled pipeline (kondense compile writes them), but is not.") from None
    return package


def _known(reference: Spec | None, declared: Spec, outer: Mapping[str, Known]) -> Known | None:
    """Return the value of an input; None if a task's output, a loop or the run sets it."""
    if reference is None:
        return Known(declared["defaultValue"]) if "defaultValue" in declared else None
    if "parameterExpressionSelector" in reference:
        return None
    if source := reference.get("componentInputParameter"):
        return outer.get(source)
    constant = reference.get("runtimeValue", {}).get("constant")
    return None if constant is None or (isinstance(constant, str) and PLACEHOLDER in constant) else Known(constant)
