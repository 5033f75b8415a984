"""Runs an Argo Workflow's graph on this machine: a small stand-in for Argo's controller and executor.

Parameters and artifacts are resolved as Argo does it, and each template's own module runs as a process. Its volumes are
directories, and the artifacts' bucket is one more. What Argo 4.0.5 was seen to refuse or to make unreadable is refused.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.warm import Warm

UID = "3f1c-uid"


class LocalArgo:
    """One run of ``workflow``; ``bucket`` has its output artifacts by their keys."""

    def __init__(
        self, workflow: Mapping[str, Any], directory: Path, secrets: Mapping[str, Mapping[str, str]], warm: Warm
    ) -> None:
        self.warm = warm
        self.spec = workflow["spec"]
        self.templates = {template["name"]: template for template in self.spec["templates"]}
        self.directory, self.bucket, self.secrets = directory, directory / "bucket", secrets
        self.variables = {"workflow.uid": UID}
        for parameter in self.spec["arguments"]["parameters"]:
            self.variables[f"workflow.parameters.{parameter['name']}"] = parameter["value"]
        self.logs: dict[str, str] = {}

    def run(self) -> None:
        """Run all tasks, each after those it depends on."""
        for task in in_order(self.templates[self.spec["entrypoint"]]["dag"]["tasks"]):
            self.logs[task["name"]] = self.run_task(task)

    def resolve(self, text: str) -> str:
        """Fill in a text's ``{{variables}}``; an unknown one is a KeyError."""
        return re.sub(r"\{\{(.+?)\}\}", lambda match: self.variables[match[1]], text)

    def key(self, artifact: Mapping[str, Any]) -> Path:
        """Return where an output artifact lies in the bucket."""
        return self.bucket / artifact["s3"]["bucket"] / self.resolve(artifact["s3"]["key"])

    def source(self, reference: str, task: Mapping[str, Any]) -> Path:
        """Return where the artifact lies that ``reference`` names."""
        match = re.fullmatch(r"\{\{tasks\.([\w-]+)\.outputs\.artifacts\.([\w-]+)\}\}", reference)
        assert match and match[1] in task["dependencies"], f"{task['name']} does not wait for {reference}"
        outputs = self.templates[match[1]]["outputs"]["artifacts"]
        return self.key(next(each for each in outputs if each["name"] == match[2]))

    def run_task(self, task: Mapping[str, Any]) -> str:
        """Run one task's command on its artifacts and return what it printed."""
        template = self.templates[task["template"]]
        shown = template["annotations"]["workflows.argoproj.io/display-name"]
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9-.]{0,61}[a-zA-Z0-9]", shown), f"display name {shown!r}"
        container = template["container"]
        empty = {volume["name"] for volume in template["volumes"] if "emptyDir" in volume}
        mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        assert set(mounts.values()) == empty

        inputs = {each["path"] for each in template["inputs"]["artifacts"]}

        def local(path: str) -> Path:
            """The place on this machine of a path in the container: an input of Argo's own, or in a volume."""
            if path in inputs:
                assert not any(path.startswith(f"{mount}/") for mount in mounts), f"{path} is below a volume"
                return self.directory / "inputs" / task["name"] / path.strip("/")
            mount = next(mount for mount in mounts if path.startswith(f"{mount}/"))
            return self.directory / "volumes" / task["name"] / mounts[mount] / path.removeprefix(f"{mount}/")

        sources = {each["name"]: each["from"] for each in task["arguments"]["artifacts"]}
        for artifact in template["inputs"]["artifacts"]:
            shutil.copytree(self.source(sources.pop(artifact["name"]), task), local(artifact["path"]))
            # Argo's init container may run as another user; without a mode the files are that one's alone.
            assert artifact["mode"] & 0o005 and artifact["recurseMode"], f"{artifact['path']} cannot be read"
        assert not sources, f"{task['name']} takes no {set(sources)}"
        paths = [each["path"] for side in ("inputs", "outputs") for each in template[side]["artifacts"]]
        arguments = [
            translate(self.resolve(each), {path: str(local(path)) for path in paths}) for each in container["args"]
        ]
        python, flag, *module = container["command"]
        assert (python, flag) == ("python3", "-m")
        result = self.warm.run([*module, *arguments], self.environment(container["env"]))
        assert result.returncode == 0, f"{task['name']}: {result.stdout}"
        for artifact in template["outputs"]["artifacts"]:
            shutil.copytree(local(artifact["path"]), self.key(artifact))
        return result.stdout

    def environment(self, variables: list[Mapping[str, Any]]) -> dict[str, str]:
        """Return a container's variables, with this Python as its python3."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": str(self.directory)}
        for each in variables:
            if "value" in each:
                environment[each["name"]] = each["value"]
            else:
                secret = each["valueFrom"]["secretKeyRef"]
                environment[each["name"]] = self.secrets[secret["name"]][secret["key"]]
        return environment


def translate(argument: str, paths: Mapping[str, str]) -> str:
    """Return ``argument`` with a whole path, alone or after its flag, in the place of the container's."""
    name, equals, value = argument.partition("=")
    return f"{name}={paths[value]}" if equals and value in paths else paths.get(argument, argument)


def in_order(tasks: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield ``tasks``, each after its dependencies."""
    done: set[str] = set()
    while len(done) < len(tasks):
        ready = [each for each in tasks if each["name"] not in done and done >= set(each["dependencies"])]
        assert ready, "the graph has a cycle, or an unknown dependency"
        for task in ready:
            yield task
            done.add(task["name"])
