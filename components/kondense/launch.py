"""Start a stage: in this process, or in one process per device under torch's elastic agent.

The processes run ``kondense.worker``, the whole stage in each. Any of them that ends otherwise than well stops all; the
reason is raised here as if the stage had run in this process.
"""

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kondense.config import Config
from kondense.errors import EXPECTED, InputError, KondenseError
from kondense.json_text import json_object
from kondense.logging import LOG
from kondense.stages import Stage, load
from kondense.training.settings import TrainingConfig
from kondense.usage import workers_took

TERMINATED = 128 + signal.SIGTERM
CHECKPOINTS = "KONDENSE_CHECKPOINTS"  # as in kondense.training.checkpoint, which imports torch
# Reasons, by what tells more: an error of the stage or a bug, then the loss of another process.
OWN, PEER = "own", "peer"


class ProcessLostError(KondenseError, ChildProcessError):
    """A process of a stage ended without a reason of its own, as when memory is short."""


def run(stage: Stage, config: Config, directories: Mapping[str, Any]) -> Mapping[str, float]:
    """Run a stage in as many processes as its devices and return its metrics.

    Args:
        stage: the stage.
        config: its parameters.
        directories: the paths that its function takes, by parameter.

    Raises:
        InputError: more devices than GPUs, or than images in a batch.
        ProcessLostError: a process was killed; all others are stopped.
    """
    count = count_processes(config)
    if count == 1:
        metrics: Mapping[str, float] = load(stage.run)(config, **directories)
        return metrics
    with tempfile.TemporaryDirectory(prefix="kondense-devices-") as scratch:
        paths = {
            name: [str(each) for each in path] if isinstance(path, list | tuple) else str(path)
            for name, path in directories.items()
        }
        request = {"stage": stage.name, "config": config.to_dict(), "directories": paths, "parent": os.getpid()}
        Path(scratch, "request.json").write_text(json.dumps(request))
        LOG.info(f"training in {count} processes")
        _launch(count, Path(scratch))
        workers_took(sum(int(path.read_text()) for path in Path(scratch).glob("*.peak")))
        return json_object(Path(scratch, "metrics.json").read_text(), "the metrics", finite=False)


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


def _launch(count: int, scratch: Path) -> None:
    """Run the workers and raise what the first of them that failed raised."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    agent = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,  # a retry is the caller's, and resumes from the checkpoint
        logs_specs=DefaultLogsSpecs(log_dir=str(scratch / "logs")),
    )
    try:
        with _environment(count), _signals_kept(), _quiet():
            elastic_launch(agent, sys.executable)("-P", "-m", "kondense.worker", str(scratch))
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        raise failure_of(scratch, codes, count) from None


def failure_of(scratch: Path, codes: Mapping[int, int], count: int) -> BaseException:
    """Return why a group of processes failed.

    Args:
        scratch: where they left their reasons: ``<rank>.json`` with ``kind``, ``type`` and ``text``.
        codes: exit codes by rank, of those that did not end well; minus a signal's number.
        count: the number of processes.
    """
    reasons = {}
    for rank in range(count):
        with contextlib.suppress(FileNotFoundError):
            reasons[rank] = json_object((scratch / f"{rank}.json").read_text(), "a reason")
    for rank, reason in reasons.items():
        if reason["kind"] == OWN:
            return _rebuilt(reason, f"process {rank + 1} of {count}")
    for rank, code in sorted(codes.items()):
        if code not in (0, TERMINATED, -signal.SIGTERM) and rank not in reasons:
            how = f"with exit code {code}"
            if code < 0:
                why = ", as the kernel does when memory is short" if code == -signal.SIGKILL else ""
                how = f"by {signal.Signals(-code).name}{why}"
            ended = f"process {rank + 1} of {count} was ended {how}; all were stopped"
            return ProcessLostError(f"{ended}, {_afterwards()}.")
    if not reasons:
        return SystemExit(TERMINATED)  # of one process, which all have followed
    rank, reason = next(iter(reasons.items()))
    return ProcessLostError(f"process {rank + 1} of {count} lost the others ({reason['text']}); {_afterwards()}.")


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
def _environment(count: int) -> Iterator[None]:
    """Set the variables of the workers: the modules of this process, and their share of its threads."""
    import torch

    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, sys.path)))
    os.environ["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // count))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it looks the machine's name up
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
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
