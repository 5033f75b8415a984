"""``python -m kondense.worker DIRECTORY``: one of the processes of a stage, as ``kondense.launch`` starts or forks it.

It reads request.json in the directory. The first process writes metrics.json there; one that fails writes why, as
``<rank>.json``.
"""

import contextlib
import ctypes
import datetime
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import distributed

from kondense.errors import EXPECTED
from kondense.json_text import json_object
from kondense.launch import OWN, PEER, TERMINATED
from kondense.logging import silent, to_stdout
from kondense.processes import PeerError, Processes, joined
from kondense.stages import STAGES, load
from kondense.training.device import choose_device
from kondense.training.settings import TrainingConfig
from kondense.usage import resident_peak_bytes, shared_bytes

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# The longest that one process waits for another, such as for the writing of a checkpoint.
TIMEOUT = datetime.timedelta(minutes=30)
NOTICED_S = 0.5  # until the agent, which looks every 0.1 s, has seen which process ended first: of forks it tells one
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


def main(directory: Path) -> int:
    """Run the stage of the request and return the exit code."""
    request = json_object((directory / "request.json").read_text(), "the request", finite=False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != request["parent"]:  # it has ended already
            return 128 + signal.SIGKILL
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))
    torch.set_num_threads(request["threads"])
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")  # of 1x1 convolutions
    processes = Processes(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    stage = STAGES[request["stage"]]
    paths = {
        name: [Path(each) for each in path] if isinstance(path, list) else Path(path)
        for name, path in request["directories"].items()
    }
    try:
        config = stage.config_class(**request["config"])
        assert isinstance(config, TrainingConfig)
        with to_stdout() if processes.first else contextlib.nullcontext(), _group(config.device), joined(processes):
            metrics = load(stage.run)(config, **paths)
    except Exception as error:  # whatever it is, the others must be told
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the agent sends one, now that a process has failed
        kind = PEER if _is_lost(error) else OWN
        if kind == OWN and not isinstance(error, EXPECTED):
            traceback.print_exc()
        name = f"{type(error).__module__}:{type(error).__qualname__}"
        reason = {"kind": kind, "type": name, "text": str(error) or type(error).__name__}
        (directory / f"{processes.rank}.json").write_text(json.dumps(reason))
        if kind == PEER:
            time.sleep(NOTICED_S)
        return 1
    (directory / f"{processes.rank}.peak").write_text(str(resident_peak_bytes() - shared_bytes()))
    if processes.first:
        (directory / "metrics.json").write_text(json.dumps(dict(metrics)))
    return 0


def forked(directory: str) -> None:
    """Run ``main`` in a fork of the agent, without the agent's handlers of signals and of the log."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    silent()
    if status := main(Path(directory)):
        leave(status)


def leave(status: int) -> None:
    """End this process, without waiting for the threads of a broken group."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def _group(device: str) -> Iterator[None]:
    """Provide torch's process group: NCCL between GPUs, gloo between processors."""
    gpu = choose_device(device).type == "cuda"
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=TIMEOUT)
    yield
    distributed.destroy_process_group()  # not after an error, when others may wait


def _is_lost(error: Exception) -> bool:
    """Return whether an error is the end of another process."""
    if isinstance(error, PeerError | distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in LOST)


if __name__ == "__main__":
    leave(main(Path(sys.argv[1])))
