"""Start a stage: in this process, or in one process per device under torch's elastic agent.

The processes run ``kondense.worker``, the whole stage in each. Any of them that ends otherwise than well stops all; the
reason is raised here as if the stage had run in this process. On several nodes every node starts its own processes, and
the agents find each other at the first node.

Without GPUs the processes are forks of this one, which share the memory of torch and of the stage's modules, 300 MB and
more; CUDA does not survive a fork, and neither do the threads of a library that has computed in parallel.
"""

import contextlib
import dataclasses
import gc
import importlib
import json
import logging
import os
import re
import signal
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kondense.config import Config
from kondense.errors import EXPECTED, InputError, KondenseError
from kondense.heap import uncollected
from kondense.json_text import json_object
from kondense.logging import LOG
from kondense.scratch import scratch_directory
from kondense.stages import Stage, load
from kondense.training.settings import TrainingConfig
from kondense.usage import workers_took

TERMINATED = 128 + signal.SIGTERM
CHECKPOINTS = "KONDENSE_CHECKPOINTS"  # as in kondense.training.checkpoint, which imports torch
# Reasons, by what tells more: an error of the stage or a bug, then the loss of another process.
OWN, PEER = "own", "peer"
# Read when the libraries are loaded. No threads of NumPy's OpenBLAS, which torch does not use and which no fork has;
# of torch's C++ code errors alone, no advice on the settings of DistributedDataParallel.
OF_LIBRARIES = {"OPENBLAS_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


RENDEZVOUS_S = 900  # the longest that a node waits for the others, which may have an image to pull


@dataclasses.dataclass(frozen=True)
class Nodes:
    """The machines that train together.

    Attributes:
        count: how many there are.
        rank: the number of this one, from 0; the first one's process 0 writes.
        endpoint: ``host:port`` of the first one.
        run_id: a name that is the same on all.
    """

    count: int
    rank: int
    endpoint: str
    run_id: str

    @classmethod
    def of(cls, environment: Mapping[str, str], run_id: str) -> "Nodes":
        """Return the nodes that torchrun's variables describe, which Kubeflow Trainer's torch runtimes set.

        Source: EnforceMLPolicy in pkg/runtime/framework/plugins/torch/torch.go of Kubeflow Trainer 2.3.

        Raises:
            InputError: a variable is missing, or no number.
        """
        texts = {}
        for name in ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"):
            texts[name] = text = environment.get(name, "")
            if not text or (name != "PET_MASTER_ADDR" and not text.isdecimal()):
                raise InputError(f"{name} must be set by the TrainJob's torch runtime, but got {text!r}.")
        count, rank, host, port = texts.values()
        if int(rank) >= int(count):
            raise InputError(f"PET_NODE_RANK must be below PET_NNODES ({count}), but got {rank}.")
        return cls(int(count), int(rank), f"{host}:{port}", run_id)


def nodes_of(environment: Mapping[str, str], run_id: str) -> Nodes | None:
    """Return the nodes that torchrun's variables describe; None where they name one, or none are set.

    Raises:
        InputError: a variable is missing, or no number.
    """
    return None if environment.get("PET_NNODES", "1") == "1" else Nodes.of(environment, run_id)


class ProcessLostError(KondenseError, ChildProcessError):
    """A process of a stage ended without a reason of its own, as when memory is short."""


class OthersLostError(ProcessLostError):
    """Processes of another node ended; that node knows why."""


def run(
    stage: Stage, config: Config, directories: Mapping[str, Any], *, nodes: Nodes | None = None
) -> Mapping[str, float]:
    """Run a stage in as many processes as its devices and return its metrics.

    Args:
        stage: the stage.
        config: its parameters; on several nodes the same on all of them.
        directories: the paths that its function takes, by parameter.
        nodes: the machines that run it together, each of which calls this; None: this one alone. Outputs and metrics
            are the first node's; the others return none.

    Raises:
        InputError: more devices than GPUs, or than images in a batch.
        ProcessLostError: a process was killed; all others are stopped.
    """
    with uncollected(kept=True):
        count = count_processes(config)
        total = count * (nodes.count if nodes else 1)
        function = load(stage.run) if total == 1 else None
    if function is not None:
        metrics: Mapping[str, float] = function(config, **directories)
        return metrics
    with scratch_directory("devices") as scratch:
        paths = {
            name: [str(each) for each in path] if isinstance(path, list | tuple) else str(path)
            for name, path in directories.items()
        }
        values = config.to_dict() | ({"devices": 0} if nodes else {})  # which is all, of all nodes
        request = {"stage": stage.name, "config": values, "directories": paths, "parent": os.getpid()}
        (scratch / "request.json").write_text(json.dumps(request | {"threads": _threads_each(count)}))
        LOG.info(f"training in {total} processes{f' on {nodes.count} nodes' if nodes else ''}")
        _launch(count, scratch, nodes, forks=can_fork(stage))
        workers_took(sum(int(path.read_text()) for path in scratch.glob("*.peak")))
        if nodes and nodes.rank > 0:
            return {}
        return json_object((scratch / "metrics.json").read_text(), "the metrics", finite=False)


def count_processes(config: Config) -> int:
    """Return the number of processes that a stage runs in.

    Raises:
        InputError: more devices than GPUs, or than images in a batch.
    """
    if not isinstance(config, TrainingConfig) or not config.trains or config.devices == 1 or config.compile:
        return 1
    import torch

    gpus = 0 if config.device == "cpu" else torch.cuda.device_count()
    count = config.devices or max(1, gpus)
    if gpus and count > gpus:
        raise InputError(f"devices must be at most {gpus}, the GPUs of this machine, but got {count}.")
    if count > config.batch_size:
        raise InputError(f"batch_size must be at least the {count} devices, but got {config.batch_size}.")
    return count


def set_variables() -> None:
    """Set the variables of the libraries that a stage loads, unless they are set."""
    for name, value in OF_LIBRARIES.items():
        os.environ.setdefault(name, value)


def _threads_each(count: int) -> int:
    """Return the number of threads that each of ``count`` processes computes with."""
    import torch

    return max(1, torch.get_num_threads() // count)


def can_fork(stage: Stage) -> bool:
    """Return whether a stage's workers may be forks of this process: it has one thread, and the machine no GPU.

    If so, it has imported what the stage needs.
    """
    import torch

    tasks = Path("/proc/self/task")  # of Linux
    if not tasks.is_dir() or torch.cuda.is_available():
        return False
    load(stage.run)
    return len(list(tasks.iterdir())) == 1


def _launch(count: int, scratch: Path, nodes: Nodes | None, *, forks: bool) -> None:
    """Run the workers and raise what the first of them that failed raised."""
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from kondense.loopback import register

    alone = nodes is None
    nodes = nodes or Nodes(1, 0, "localhost:0", uuid.uuid4().hex)
    agent = LaunchConfig(
        min_nodes=nodes.count,
        max_nodes=nodes.count,
        nproc_per_node=count,
        run_id=nodes.run_id,
        rdzv_backend=register() if alone else "static",
        rdzv_endpoint=nodes.endpoint,
        rdzv_configs={} if alone else {"rank": nodes.rank, "timeout": RENDEZVOUS_S},
        local_addr="localhost" if alone else None,
        max_restarts=0,  # a retry is the caller's, and resumes from the checkpoint
        logs_specs=DefaultLogsSpecs(log_dir=str(scratch / "logs")),
        start_method="fork",  # of functions
    )
    try:
        with _environment(count, alone=alone), _signals_kept(), _quiet(), _frozen():
            if forks:
                elastic_launch(agent, load("kondense.worker:forked"))(str(scratch))
            else:
                elastic_launch(agent, sys.executable)("-P", "-m", "kondense.worker", str(scratch))
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    except DistError as error:  # of the agents
        if alone:
            raise
        raise OthersLostError(
            f"all {nodes.count} nodes must meet at {nodes.endpoint} within {RENDEZVOUS_S} s, but node {nodes.rank} did"
            f" not find the others ({str(error).splitlines()[0]}); all here were stopped, {_afterwards()}."
        ) from None
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        raise failure_of(scratch, codes, count, first=nodes.rank * count, total=nodes.count * count) from None


def failure_of(scratch: Path, codes: Mapping[int, int], count: int, *, first: int = 0, total: int = 0) -> BaseException:
    """Return why a group of processes failed.

    Args:
        scratch: where they left their reasons: ``<rank>.json`` with ``kind``, ``type`` and ``text``.
        codes: exit codes by rank, of those that did not end well; minus a signal's number.
        count: the number of processes of this node.
        first: the rank of its first one.
        total: the number of processes of all nodes; 0: ``count``.
    """
    reasons = {}
    total = total or count
    for rank in range(first, first + count):
        with contextlib.suppress(FileNotFoundError):
            reasons[rank] = json_object((scratch / f"{rank}.json").read_text(), "a reason")
    for rank, reason in reasons.items():
        if reason["kind"] == OWN:
            return _rebuilt(reason, f"process {rank + 1} of {total}")
    for rank, code in sorted(codes.items()):
        if code not in (0, TERMINATED, -signal.SIGTERM) and rank not in reasons:
            how = f"with exit code {code}"
            if code < 0:
                why = ", as the kernel does when memory is short" if code == -signal.SIGKILL else ""
                how = f"by {signal.Signals(-code).name}{why}"
            ended = f"process {rank + 1} of {total} was ended {how}; all were stopped"
            return ProcessLostError(f"{ended}, {_afterwards()}.")
    if not reasons:
        return SystemExit(TERMINATED)  # of one process, which all have followed
    rank, reason = next(iter(reasons.items()))
    kind = OthersLostError if total > count else ProcessLostError
    lost = f"process {rank + 1} of {total} lost the others ({_brief(reason['text'])})"
    return kind(f"{lost}; all here were stopped, {_afterwards()}.")


def _brief(text: str) -> str:
    """Return the first sentence of an error of gloo or NCCL, without the place in their sources and their advice."""
    return re.sub(r"^\[[^\]]*\] ", "", text.splitlines()[0]).split(". ")[0].rstrip(".")


def _afterwards() -> str:
    if os.environ.get(CHECKPOINTS):
        return "and the same command goes on from the latest checkpoint"
    return f"and the same command begins anew, since {CHECKPOINTS} names no place for checkpoints"


def _rebuilt(reason: Mapping[str, str], process: str) -> BaseException:
    """Return the error of a process; what is neither expected nor trouble of the machine becomes a line about it."""
    module, _, name = reason["type"].partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        kind = KondenseError
    if issubclass(kind, (*EXPECTED, MemoryError)) or name == "OutOfMemoryError":
        try:
            error: BaseException = kind(reason["text"])
        except TypeError:
            return KondenseError(reason["text"])
        return error
    return KondenseError(f"{process} failed: {name}: {reason['text']}")


@contextlib.contextmanager
def _environment(count: int, *, alone: bool) -> Iterator[None]:
    """Set the variables of the workers: the modules of this process, and their share of its threads."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, sys.path)))
    os.environ["OMP_NUM_THREADS"] = str(_threads_each(count))
    if alone and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it looks the machine's name up
    set_variables()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore the handlers that the agent replaces."""
    names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {name: signal.getsignal(name) for name in names}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread, where none was replaced
            for name, handler in before.items():
                signal.signal(name, handler)


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """Keep the collectors of forks from looking over, and so copying, the objects that there are."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the agent's loggers: the reason is told in one line."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]
    before = {name: logging.getLogger(name).disabled for name in names}
    for name in names:
        logging.getLogger(name).disabled = True
    try:
        yield
    finally:
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled
