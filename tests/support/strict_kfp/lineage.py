"""The metadata store: artifacts, executions and the events between them, with the rule that bites.

The store keeps one event for an artifact, an execution and a direction. So a task that gets one artifact under two
input names is refused, however the artifact came to it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.strict_kfp.values import stored

INPUT, OUTPUT = "INPUT", "OUTPUT"
SESSION = '{"Provider":"minio","Params":{"fromEnv":"false"}}'


class LineageError(ValueError):
    """The metadata store refused."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What a task has written: ``metadata`` is in the store's form."""

    id: int
    uri: str
    schema_title: str
    metadata: Mapping[str, Any]


@dataclasses.dataclass
class Execution:
    """One task's run, a graph's or a container's; ``outputs`` are its output parameters."""

    id: int
    task: str
    parameters: Mapping[str, Any]
    outputs: dict[str, Any] = dataclasses.field(default_factory=dict)


class Lineage:
    """All runs' artifacts, executions and events."""

    def __init__(self) -> None:
        self.artifacts: dict[int, Artifact] = {}
        self.executions: dict[int, Execution] = {}
        self.events: dict[tuple[int, int, str], str] = {}  # artifact, execution, direction -> name

    def begin(self, task: str, parameters: Mapping[str, Any], inputs: Mapping[str, Sequence[Artifact]]) -> Execution:
        """Create an execution with its inputs.

        Raises:
            LineageError: one artifact is there under two input names.
        """
        execution = Execution(len(self.executions) + 1, task, dict(parameters))
        self.executions[execution.id] = execution
        for name, artifacts in inputs.items():
            for artifact in artifacts:
                self._connect(artifact, execution, INPUT, name)
        return execution

    def record(self, name: str, uri: str, schema_title: str, metadata: Mapping[str, Any]) -> Artifact:
        """Create an artifact of an output called ``name``.

        Raises:
            LineageError: its metadata cannot be stored.
        """
        if not schema_title:
            raise LineageError(f"output {name!r} has no type.")
        try:
            kept = {"display_name": name, "store_session_info": SESSION, **stored(metadata)}
        except ValueError as error:
            raise LineageError(f"output {name!r}: {error}") from None
        artifact = Artifact(len(self.artifacts) + 1, uri, schema_title, kept)
        self.artifacts[artifact.id] = artifact
        return artifact

    def publish(self, execution: Execution, parameters: Mapping[str, Any], artifacts: Mapping[str, Artifact]) -> None:
        """Note what an execution has written."""
        execution.outputs = dict(parameters)
        for name, artifact in artifacts.items():
            self._connect(artifact, execution, OUTPUT, name)

    def connected(self, execution: Execution, direction: str) -> dict[str, Artifact]:
        """Return an execution's input or output artifacts by name."""
        return {
            name: self.artifacts[artifact]
            for (artifact, owner, found), name in self.events.items()
            if owner == execution.id and found == direction
        }

    def _connect(self, artifact: Artifact, execution: Execution, direction: str, name: str) -> None:
        key = (artifact.id, execution.id, direction)
        if key in self.events:
            raise LineageError(
                f"ALREADY_EXISTS: task {execution.task!r} has artifact {artifact.id} ({artifact.uri}) as "
                f"{direction} {self.events[key]!r} and as {name!r}; the metadata store keeps one."
            )
        self.events[key] = name
