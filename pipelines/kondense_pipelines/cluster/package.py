"""A compiled pipeline as KFP takes it: its parameters, the values of every task's inputs, what it asks of a server."""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from kondense.errors import InputError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DIGITS = 10  # of a package's digest in names
PLACEHOLDER = "{{$.inputs"  # KFP puts another input there when a task starts

Spec = Mapping[str, Any]


class Known(NamedTuple):
    """An input's value that is known before a run, and the pipeline's parameter that gives it; empty for none."""

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
        file: where it is.
        spec: the pipeline, KFP's IR.
        platform: what it asks of Kubernetes; empty for nothing.
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
        """The first digits of what names its content."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()[:DIGITS]

    def tasks(self, parameters: Mapping[str, Any]) -> Iterator[ContainerTask]:
        """Yield the tasks that run containers, of graphs within graphs too.

        Args:
            parameters: those of the run that have not the package's default.
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
            found = {name: _known(references.get(name), each, outer) for name, each in declared.items()}
            known = {name: value for name, value in found.items() if value}
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
        """Return what it has that Kubeflow Pipelines before 2.16 does not know, and therefore refuses."""
        components = [self.spec["root"], *self.spec.get("components", {}).values()]
        inputs = [each.get("inputDefinitions", {}).get("parameters", {}) for each in components]
        executors = self.platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors")
        found = []
        if any("literals" in each for parameters in inputs for each in parameters.values()):
            found.append("choices of parameters")
        if any("securityContext" in each for each in (executors or {}).values()):
            found.append("security contexts")
        return found

    def without_cache(self) -> "Package":
        """Return it with no task taking the results of an earlier run.

        kfp's own ``enable_caching=False`` reaches the outermost tasks only, and none of a registered version.
        """
        spec = copy.deepcopy(dict(self.spec))
        for component in (spec["root"], *spec.get("components", {}).values()):
            for task in component.get("dag", {}).get("tasks", {}).values():
                task["cachingOptions"] = {}
        return dataclasses.replace(self, spec=spec)

    def for_a_run(self) -> dict[str, Any]:
        """Return it as the ``pipeline_spec`` of a run that has no version."""
        spec = dict(self.spec)
        return {"pipeline_spec": spec, "platform_spec": dict(self.platform)} if self.platform else spec

    def as_text(self) -> str:
        """Return it as a file holds it: documents of YAML, which JSON is."""
        return "\n---\n".join(json.dumps(each) for each in (self.spec, self.platform) if each)


def read_package(file: Path) -> Package:
    """Read a compiled pipeline.

    Raises:
        ValueError: the file is none.
    """
    try:
        spec, *platforms = yaml.load_all(file.read_text(encoding="utf-8"), Loader=LOADER)
        package = Package(file, spec, platforms[0] if platforms else {})
        if not package.name or not isinstance(spec["root"], dict):
            raise KeyError("pipelineInfo")
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{file} must be a compiled pipeline (kondense compile makes them), but is none.") from None
    return package


def _known(reference: Spec | None, declared: Spec, outer: Mapping[str, Known]) -> Known | None:
    """Return the value of an input; None where a task's output, a loop or the run decides it."""
    if reference is None:
        return Known(declared["defaultValue"]) if "defaultValue" in declared else None
    if "parameterExpressionSelector" in reference:
        return None
    if source := reference.get("componentInputParameter"):
        return outer.get(source)
    found = reference.get("runtimeValue", {}).get("constant")
    return None if found is None or (isinstance(found, str) and PLACEHOLDER in found) else Known(found)
