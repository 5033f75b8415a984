"""The launcher: fetches a task's inputs, runs its code from the package, reads what it has written, uploads it.

Each task has a directory of its own in the place of its pod's file system, so it sees what it gets by artifacts and
nothing else. The object store is another directory, with files by their keys.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.strict_kfp.driver import LOGS, local_path
from tests.support.strict_kfp.fork_server import ForkServer
from tests.support.strict_kfp.graph import Node, Package
from tests.support.strict_kfp.values import as_text, as_type, check_input, read_output

EXECUTOR = "python3 -m kfp.dsl.executor_main"
SHELL = 4  # sh -ec SCRIPT SOURCE
LONGEST_ARGUMENT = 131_072  # Linux's MAX_ARG_STRLEN, in bytes
ATTEMPT = "-0"  # the log of each attempt has a name of its own


class StepError(RuntimeError):
    """A step failed; the text ends with its log."""


class Launcher:
    """Runs the steps of one package; ``secrets`` are the namespace's, by name and key."""

    def __init__(
        self,
        package: Package,
        bucket: Path,
        server: ForkServer,
        secrets: Mapping[str, Mapping[str, str]],
        environment: Mapping[str, str],
    ) -> None:
        self.package, self.bucket, self.server = package, bucket, server
        self.secrets, self.further = secrets, environment

    def run(self, node: Node, message: dict[str, Any], directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run a task and return its output parameters and what it says of its artifacts.

        Args:
            node: the task.
            message: its ExecutorInput.
            directory: the root of its file system, which is made.

        Raises:
            StepError: it failed, or wrote what the launcher does not take.
        """
        check_input(message)
        log = directory / "log"
        (directory / "tmp").mkdir(parents=True)
        for artifact in each_artifact(message.get("inputs", {})).values():
            self._download(artifact["uri"], local_path(artifact["uri"], directory))
        outputs = message["outputs"]
        logged = each_artifact(outputs)[LOGS]
        logged["uri"] += ATTEMPT
        for artifact in each_artifact(outputs).values():
            local_path(artifact["uri"], directory).parent.mkdir(parents=True, exist_ok=True)
        source, arguments = self._command(node, self._with_defaults(node, message))
        status = self.server.run(source, arguments, self._environment(node, directory), directory, log)
        if status:
            raise StepError(f"task {node.path} ({node.title}) ended with {status}:\n{read(log)}")
        shutil.copyfile(log, local_path(logged["uri"], directory))
        try:
            return self._read(node, outputs)
        except (ValueError, OSError) as error:
            raise StepError(f"task {node.path} ({node.title}): {error}\n{read(log)}") from error

    def upload(self, outputs: Mapping[str, Any], said: Mapping[str, Any], directory: Path) -> dict[str, dict[str, Any]]:
        """Upload a task's artifacts and return them by name; what the task says of them outweighs what was planned."""
        found = {}
        for name, artifact in each_artifact(outputs).items():
            heard = ((said.get(name) or {}).get("artifacts") or [{}])[0] if name != LOGS else {}
            metadata = {**artifact.get("metadata", {}), **(heard.get("metadata") or {})}
            uri = heard.get("uri") or artifact["uri"]
            if heard.get("custom_path") or heard.get("customPath"):
                raise NotImplementedError(f"output {name!r} has a path of its own, which is not supported here.")
            found[name] = {**artifact, "uri": uri, "metadata": metadata}
            upload(local_path(uri, directory), self.key(uri))
        return found

    def key(self, uri: str) -> Path:
        """Return where an artifact lies in the object store."""
        return self.bucket / uri.partition("://")[2]

    def _download(self, uri: str, target: Path) -> None:
        source = self.key(uri)
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.is_file():  # a step may have written nothing, and then there is nothing to fetch
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def _with_defaults(self, node: Node, message: Mapping[str, Any]) -> dict[str, Any]:
        declared = node.declared("inputs", "parameters")
        defaults = {name: spec["defaultValue"] for name, spec in declared.items() if "defaultValue" in spec}
        inputs = dict(message.get("inputs", {}))
        values = {**defaults, **inputs.get("parameterValues", {})}
        if values:
            inputs["parameterValues"] = values
        return {**message, "inputs": inputs}

    def _command(self, node: Node, message: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Return the source of a lightweight component and the arguments of kfp's executor."""
        container = self.package.container(node)
        command = [fill_in(each, message) for each in container["command"]]
        ours = len(command) == SHELL and command[:2] == ["sh", "-ec"] and EXECUTOR in command[2]
        if not ours or "pip" in command[2]:
            raise NotImplementedError(f"task {node.path}: the command {command[:3]} is not supported here.")
        arguments = [fill_in(each, message) for each in container.get("args", ())]
        if any(len(each.encode()) >= LONGEST_ARGUMENT for each in (*command, *arguments)):
            raise StepError(f"task {node.path}: argument list too long; its inputs are one argument")
        return command[3], arguments

    def _environment(self, node: Node, directory: Path) -> dict[str, str]:
        """Return a container's variables, and no others but what finds this machine's Python."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        found = {"PATH": path, "HOME": str(directory), "TMPDIR": str(directory / "tmp"), "OMP_NUM_THREADS": "1"}
        found["_KFP_RUNTIME"] = "true"
        found |= {each["name"]: each["value"] for each in self.package.container(node).get("env", ())}
        for each in self.package.on_kubernetes(node).get("secretAsEnv", ()):
            secret = self.secrets.get(each["secretName"])
            if secret is None and not each.get("optional"):
                raise StepError(f"task {node.path} waits for the secret {each['secretName']}, which is not there")
            found |= {key["envVar"]: secret[key["secretKey"]] for key in each["keyToEnv"] if secret}
        return found | self.further

    def _read(self, node: Node, outputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        file = Path(outputs["outputFile"])
        found = read_output(file.read_text(encoding="utf-8")) if file.exists() else read_output("{}")
        declared = node.declared("outputs", "parameters")
        for name, place in outputs.get("parameters", {}).items():
            if name not in found["parameterValues"]:
                try:
                    text = Path(place["outputFile"]).read_text(encoding="utf-8")
                except FileNotFoundError:
                    raise ValueError(f"output parameter {name!r} was never written") from None
                found["parameterValues"][name] = parse(text, declared[name]["parameterType"])
        return found["parameterValues"], found["artifacts"]


def each_artifact(side: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the artifacts of a message's ``inputs`` or ``outputs`` by name."""
    return {name: each["artifacts"][0] for name, each in side.get("artifacts", {}).items()}


def fill_in(text: str, message: Mapping[str, Any]) -> str:
    """Return a part of a command with its placeholders filled in."""
    text = text.replace("{{$}}", json.dumps(message))
    for name, value in message["inputs"].get("parameterValues", {}).items():
        text = text.replace(f"{{{{$.inputs.parameters['{name}']}}}}", as_text(value))
    if "{{$." in text:
        raise NotImplementedError(f"a placeholder of {text[:80]!r} is not supported here.")
    return text


def parse(text: str, kind: str) -> Any:
    """Return an output parameter's value from the text of its file."""
    if kind == "STRING":
        return text
    return as_type("output", json.loads(text.strip().lower() if kind == "BOOLEAN" else text), kind)


def upload(source: Path, target: Path) -> None:
    """Copy an artifact's files to the object store, which keeps neither empty directories nor modes."""
    if source.is_dir():
        for each in source.iterdir():
            upload(each, target / each.name)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def read(log: Path) -> str:
    """Return a step's log."""
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
