"""Run a pipeline on this machine under kfp.local, with progress, logs per step, a cache and a warm start.

kfp.local has no hooks, so five of its names are replaced during a run (``_hooks``), each by one that does the same and
reports it. kfp is pinned to the version that they were written for.
"""

import collections
import contextlib
import dataclasses
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from kfp import dsl, local
from kfp.local import cache as kfp_cache
from kfp.local import docker_task_handler, graph_utils, status, subprocess_task_handler
from kfp.local.orchestrator import task_executor
from kondense.artifacts.failed import VARIABLE, Failed, first_failed, write_failed
from kondense.errors import InputError
from kondense.files import write_json
from kondense.json_text import json_object
from kondense.logging import WARNING
from kondense.stages import VIEWS
from kondense.usage import read_usage

from kondense_pipelines.local.cache import ContentCache, kept_from_sweeps
from kondense_pipelines.local.docker import container_function
from kondense_pipelines.local.stage_process import run_stage
from kondense_pipelines.local.steps import Observer, StepError, StepResult, failure_line, reason_for, signal_of
from kondense_pipelines.local.warm import WarmServer

STOPPED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # a person ends the run
RETRIES = 1


@dataclasses.dataclass(frozen=True)
class LocalSettings:
    """Where and how a pipeline runs on this machine.

    Attributes:
        output_dir: gets ``logs/<step>.log``.
        cache_dir: holds the artifacts of all runs and the cache of finished steps.
        version: of the code that runs; part of every cache key.
        order: display names of the steps in the order to run them, as far as their inputs allow.
        caching: False runs every step.
        docker: run the steps as containers.
        environment: variables of every step's process.
        mounts: further paths that containers can read.
        retries: times that a step is started again after it was killed, or the object store had to be started again.
        store: returns an identity of the object store's process, once it runs; another one if it was started again.
    """

    output_dir: Path
    cache_dir: Path
    version: str
    order: Sequence[str] = ()
    caching: bool = True
    docker: bool = False
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mounts: Sequence[Path] = ()
    retries: int = RETRIES
    store: Callable[[], object] = lambda: None  # none to watch


def run_pipeline(
    pipeline: Any,
    arguments: Mapping[str, Any],
    settings: LocalSettings,
    observer: Observer,
    server: WarmServer | None = None,
) -> dict[str, StepResult]:
    """Run ``pipeline`` and return the results of its steps by display name.

    Args:
        pipeline: a function decorated with ``dsl.pipeline``.
        arguments: its parameters.
        settings: where and how to run it.
        observer: notified of every step.
        server: forks the steps' processes; without it each step starts an interpreter.

    Raises:
        StepError: a step failed. Finished steps are kept, so the same call continues from there.
    """
    artifacts, entries = settings.cache_dir / "artifacts", settings.cache_dir / "steps"
    logs = settings.output_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    run = LocalRun(settings, observer, server)
    with (
        kept_from_sweeps(entries, artifacts),
        (logs / "kfp.log").open("a") as log,
        contextlib.redirect_stdout(log),
        _hooks(run),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=".*have no effect in the current local runner.*")
        warnings.filterwarnings("ignore", message=".*may be attemping to run a task that uses custom or non-Python.*")
        local.init(
            runner=_runner(settings),
            pipeline_root=str(artifacts),
            enable_caching=settings.caching,
            cache_root=str(entries),
        )
        try:
            pipeline(**arguments)
        except RuntimeError as error:
            # kfp names the failed task in escape codes; the step's output has the reason.
            refused = InputError.exit_code if run.exit_code == InputError.exit_code else StepError.exit_code
            raise StepError(run.failure or f"the pipeline failed: {error} (log: {log.name})", refused) from None
    return run.results


def _runner(settings: LocalSettings) -> local.SubprocessRunner | local.DockerRunner:
    if not settings.docker:
        return local.SubprocessRunner(use_venv=False)
    return local.DockerRunner(
        entrypoint="",
        network_mode="host",  # the object store listens on this machine's loopback
        user=f"{os.getuid()}:{os.getgid()}",
        environment={"HOME": "/tmp", **settings.environment},
    )


class LocalRun:
    """One run: the current step, its log, and the results so far."""

    def __init__(self, settings: LocalSettings, observer: Observer, server: WarmServer | None) -> None:
        self.settings = settings
        self.observer = observer
        self.server = server
        self.cache = (
            KeptResults(settings.cache_dir / "steps", settings.version, self.warn) if settings.caching else None
        )
        self.results: dict[str, StepResult] = {}
        self.failure = ""
        self.step = ""
        self.log: IO[str] = sys.stdout
        self.exit_code: int | None = None
        self.memory_bytes = 0
        self.tail: collections.deque[str] = collections.deque(maxlen=400)

    def execute(self, original: Any, **arguments: Any) -> tuple[dict[str, Any], status.Status]:
        """Run one task by kfp's function ``original``, and report its start and end."""
        self.step = arguments["task_spec"].task_info.name or arguments["task_name"]
        self.exit_code, self.memory_bytes = None, 0
        self.tail.clear()
        path = self.log_path()
        began = time.monotonic()
        self.observer.started(self.step)
        with path.open("w") as self.log:
            outputs, state = original(**arguments)
        if state != status.Status.SUCCESS:
            self.failure = failure_line(self.step, self.exit_code, list(self.tail), path)
            return outputs, state
        if reused := self.exit_code is None:
            path.unlink()
        paths = {name: Path(value.path) for name, value in outputs.items() if isinstance(value, dsl.Artifact)}
        failed, seconds = first_failed(paths.values()), time.monotonic() - began
        result = StepResult(self.step, reused, seconds, paths, failed, None if reused else path, self.memory_bytes)
        self.results[self.step] = result
        self.observer.finished(result)
        return outputs, state

    def log_path(self) -> Path:
        """Return the current step's log."""
        return self.settings.output_dir / "logs" / (self.step.replace(" ", "-") + ".log")

    def write_line(self, line: str) -> None:
        """Write one line of the current step's output to its log, and show it."""
        self.tail.append(line)
        self.log.write(line + "\n")
        self.log.flush()
        if usage := read_usage(line):
            self.memory_bytes = usage[1]
        self.observer.line(self.step, line)

    def warn(self, text: str) -> None:
        """Show a warning about the current step, which has no output of its own."""
        self.observer.line(self.step, WARNING + text)

    def exited(self, code: int) -> None:
        """Record the current step's exit code."""
        self.exit_code = code

    def attempts(self, once: Callable[[], int], command: Sequence[str]) -> int:
        """Return the exit code of ``once``, the current step's process, called again if it was killed.

        Also if it failed while the object store was started again. Stages are resumable, so that the step goes on.
        """
        for number in range(1, self.settings.retries + 1):
            before = self.settings.store()
            code = once()
            if signal_of(code) and signal_of(code) not in STOPPED:
                why = f"it was ended by {signal.Signals(signal_of(code)).name}"
            elif (code == 1 or has_failed(command)) and self.settings.store() != before:
                why = "the object store was started again meanwhile"
            else:
                return code
            self.write_line(f"{WARNING}{why}; it is started again (retry {number} of {self.settings.retries})")
        return once()

    def settled(self, code: int, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Return the code with which the current step counts.

        A candidate's step that could not write its failure itself, because it was killed or the machine was in
        trouble, has it written here, so that the other candidates go on.
        """
        if code == 0 or VARIABLE not in environment or signal_of(code) in STOPPED:
            return code
        message = executor_input(command)
        name = message["inputs"].get("parameterValues", {}).get("name", "")
        failed = Failed(name=name, step=self.step, reason=reason_for(code, list(self.tail)))
        outputs = message["outputs"]
        for each in outputs["artifacts"].values():
            (artifact,) = each["artifacts"]
            if artifact["type"]["schemaTitle"].removeprefix("system.") not in VIEWS:
                write_failed(Path(artifact["uri"]), failed)
        write_json(Path(outputs["outputFile"]), {"artifacts": outputs["artifacts"]})
        return 0


def executor_input(command: Sequence[str]) -> dict[str, Any]:
    """Return what kfp tells a step's process of its inputs and outputs.

    Raises:
        InputError: it has not the form of the kfp that this module was written for.
    """
    message = json_object(command[list(command).index("--executor_input") + 1], "executor_input")
    try:
        message["inputs"].get("parameterValues", {}).get("name", "")
        listed = [each for entry in message["outputs"].get("artifacts", {}).values() for each in entry["artifacts"]]
        texts = [text for each in listed for text in (each["uri"], each["type"]["schemaTitle"])]
        if all(text.isprintable() for text in texts) and message["outputs"]["outputFile"].isprintable():
            return message
    except (AttributeError, LookupError, TypeError):
        pass
    raise InputError(f"executor_input must have inputs and outputs as in kfp 2, but got {str(message)[:80]!r}.")


def has_failed(command: Sequence[str]) -> bool:
    """Return whether a candidate's step has written that it failed, and has ended well for the others' sake."""
    artifacts = executor_input(command)["outputs"].get("artifacts", {}).values()
    return first_failed(Path(each["uri"]) for entry in artifacts for each in entry["artifacts"]) is not None


class KeptResults(ContentCache):
    """The cache of finished steps, without those of candidates that failed: the same command tries them again."""

    def put(self, key: str, outputs: Mapping[str, Any]) -> None:
        """Store the outputs of a step, unless they say that it failed."""
        if not first_failed(Path(each.path) for each in outputs.values() if isinstance(each, dsl.Artifact)):
            super().put(key, outputs)


@contextlib.contextmanager
def _hooks(run: LocalRun) -> Iterator[None]:
    execute_single_task = task_executor.execute_single_task

    class Handler(subprocess_task_handler.SubprocessTaskHandler):
        def run(self) -> status.Status:
            environment = {**run.settings.environment, **self.env_vars}
            code = run.attempts(
                lambda: run_stage(self.full_command, environment, run.write_line, run.server), self.full_command
            )
            run.exited(code)
            code = run.settled(code, self.full_command, self.env_vars)
            return status.Status.SUCCESS if code == 0 else status.Status.FAILURE

    container = container_function(run.write_line, run.exited, run.settings.mounts, run.settled, run.attempts)
    with contextlib.ExitStack() as stack:
        for module, name, replacement in (
            (task_executor, "execute_single_task", lambda **arguments: run.execute(execute_single_task, **arguments)),
            (kfp_cache, "get_local_cache", lambda: run.cache),
            (subprocess_task_handler, "SubprocessTaskHandler", Handler),
            (docker_task_handler, "run_docker_container", container),
            (graph_utils, "topological_sort_tasks", lambda tasks: sorted_tasks(tasks, run.settings.order)[::-1]),
        ):
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, replacement)
        yield


def sorted_tasks(tasks: Mapping[str, Any], order: Sequence[str]) -> list[str]:
    """Return the names of a graph's tasks, each after those that it depends on, otherwise by ``order``.

    kfp reads them from a protobuf map, whose order differs from process to process.
    """
    index = {name: number for number, name in enumerate(order)}
    waiting = sorted(tasks, key=lambda name: (index.get(tasks[name].task_info.name, len(index)), name))
    result: list[str] = []
    while waiting:
        ready = next(name for name in waiting if set(tasks[name].dependent_tasks) <= set(result))
        waiting.remove(ready)
        result.append(ready)
    return result
