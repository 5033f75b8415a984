"""Several processes of a group, forked from the test's."""

import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kondense.processes import Processes, joined
from torch import distributed


def together(function: Callable[[Processes], Any], directory: Path, count: int = 2) -> list[Any]:
    """Return what ``function`` returns in each of ``count`` processes; its tensors are handed over by value."""
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_child, args=(function, directory, rank, count)) for rank in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        if child.is_alive():
            child.kill()
    assert [child.exitcode for child in children] == [0] * count
    return [pickle.loads((directory / f"result-{rank}").read_bytes()) for rank in range(count)]


def _child(function: Callable[[Processes], Any], directory: Path, rank: int, count: int) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    processes = Processes(rank, count)
    distributed.init_process_group("gloo", init_method=f"file://{directory}/group", rank=rank, world_size=count)
    with joined(processes):
        result = function(processes)
    (directory / f"result-{rank}").write_bytes(pickle.dumps(result))
    distributed.destroy_process_group()
