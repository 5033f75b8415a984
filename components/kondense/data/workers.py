"""Decode batches ahead in worker processes of torch's DataLoader, within a bound of bytes.

A worker that dies is replaced and its batches are decoded again; an error in a worker is raised here as it was there.

Shapes: B images in a batch.
"""

import contextlib
import dataclasses
import functools
import math
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from kondense.errors import InputError, KondenseError
from kondense.heap import return_large_blocks
from kondense.logging import LOG
from kondense.processes import current
from kondense.scratch import PREFIX, scratch_directory

WORKERS, PREFETCH = "KONDENSE_WORKERS", "KONDENSE_PREFETCH_BYTES"  # environment variables
MOST_WORKERS = 8
PREFETCH_BYTES = 256 * 2**20
MOST_AHEAD = 4  # batches per worker
RESTARTS = 3
FEW = 256  # images that are not worth a worker
SHARED_MEMORY = "/dev/shm"  # where workers leave their batches
SOCKETS = "sockets"
SOCKET_NAME = len(f"/{PREFIX}{SOCKETS}-12345678/pymp-12345678/listener-12345678")  # bytes
MOST_ADDRESS = 107  # of unix(7)
Read = Callable[[Tensor], Any]
Change = Callable[[int, Tensor], Any]  # takes a batch's number and its images


@dataclasses.dataclass(frozen=True)
class Failure:
    """An error of a worker, handed over as a value: torch would wrap it in its traceback."""

    error: Exception


class Batches(Dataset[Any]):
    """The batches, by number."""

    def __init__(self, read: Read, indices: Sequence[Tensor], change: Change | None) -> None:
        self.read, self.indices, self.change = read, indices, change

    def __getitem__(self, number: int) -> Any:
        try:
            images = self.read(self.indices[number])
            return self.change(number, images) if self.change else images
        except (KondenseError, OSError) as error:
            return Failure(error)


def delivered(
    read: Read,
    indices: Sequence[Tensor],
    change: Change | None,
    *,
    image_bytes: int,
    few: int | None = None,
    spare: int = 1,
) -> Iterator[Any]:
    """Yield the batches in order.

    Args:
        read: returns the images at an index tensor [B].
        indices: of the batches.
        change: called with a batch's number and images; its result is yielded in their place.
        image_bytes: size of one decoded image.
        few: images that are not worth a worker; None: FEW.
        spare: processors that the caller needs itself.

    Raises:
        KondenseError: an error of ``read`` or ``change``, or workers that die again and again.
    """
    batches = Batches(read, indices, change)
    batch_bytes = image_bytes * max(map(len, indices), default=0)
    count, ahead = planned(batch_bytes, spare) if sum(map(len, indices)) > (FEW if few is None else few) else (0, 0)
    done = restarts = 0
    while done < len(indices):
        for item in _items(batches, range(done, len(indices)), count, ahead):
            if isinstance(item, WorkerDied):
                restarts += 1
                if restarts > RESTARTS:
                    raise KondenseError(f"worker processes must decode images, but died {restarts} times: {item}.")
                LOG.warning(f"a worker process died ({item}); it is started again at batch {done + 1}/{len(indices)}")
                break
            if isinstance(item, Failure):
                raise item.error
            done += 1
            yield item


class WorkerDied(str):
    """Why torch's DataLoader gave up, in one line."""


def _items(batches: Batches, numbers: range, count: int, ahead: int) -> Iterator[Any]:
    """Yield the batches of ``numbers``; a WorkerDied at the end if a worker died."""
    if not count:
        yield from (batches[number] for number in numbers)
        return
    with scratch_directory(SOCKETS, place=_with_room()) as sockets:
        with _own_signals():
            source = iter(
                DataLoader(
                    batches,
                    batch_size=None,
                    sampler=numbers,
                    num_workers=count,
                    prefetch_factor=ahead,
                    multiprocessing_context=_context(),
                    worker_init_fn=functools.partial(_prepare, sockets),
                )
            )
        try:
            yield from _handed_over(source)
        finally:
            del source  # its workers end before their sockets' directory does


class _Flag:
    """An event without a lock: one that a worker holds when it is killed is held for ever, and torch waits for it."""

    def __init__(self, context: BaseContext) -> None:
        self._value = context.RawValue("b", 0)

    def set(self) -> None:
        """Raise the flag."""
        self._value.value = 1

    def is_set(self) -> bool:
        """Return whether the flag is up."""
        return bool(self._value.value)


def _context() -> BaseContext:
    """Return the usual context of multiprocessing, but for the event by which torch's DataLoader ends its workers."""
    usual: Any = type(multiprocessing.get_context(multiprocessing.get_start_method()))

    class Context(usual):
        def Event(self) -> _Flag:  # noqa: N802 - multiprocessing's name
            return _Flag(self)

    context: BaseContext = Context()
    return context


def _handed_over(source: Iterator[Any]) -> Iterator[Any]:
    while True:
        try:
            item = next(source)
        except StopIteration:
            return
        except (EOFError, ConnectionError):  # it died while its batch was handed over
            yield WorkerDied("it ended while it handed over its batch")
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            yield WorkerDied(str(error).strip().partition("\n")[0].rstrip("."))
            return
        yield item


def new_batch(shape: Sequence[int]) -> Tensor:
    """Return an uninitialised uint8 tensor: of a worker process in shared memory, so that it is handed over uncopied.

    Source: torch.utils.data's default_collate.
    """
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(*shape)


def _prepare(sockets: Path, number: int) -> None:
    """Ready a worker process: multiprocessing makes the socket, through which it hands over batches, in ``sockets``."""
    return_large_blocks()
    tempfile.tempdir = str(sockets)  # what a killed worker leaves is removed with it


def _with_room() -> Path:
    """Return where the address of a worker's socket has room.

    Where the temporary directory has a long path, as on a cluster's scratch disk, the address does not fit, the batch
    is dropped in a thread that tells nobody, and the reader waits for ever.
    """
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) + SOCKET_NAME <= MOST_ADDRESS:
        return Path(usual)
    return Path(next((path for path in ("/tmp", SHARED_MEMORY) if os.access(path, os.W_OK)), usual))


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep torch from raising a worker's death in the middle of whatever the main thread does; ``next`` finds it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def planned(batch_bytes: int, spare: int = 1) -> tuple[int, int]:
    """Return the number of worker processes and of batches that each decodes ahead, within the bound of bytes.

    Args:
        batch_bytes: size of a decoded batch.
        spare: processors that the caller needs itself.

    Raises:
        InputError: a variable of the environment is no whole number.
    """
    processors = len(os.sched_getaffinity(0)) // current().count
    asked = whole_number(WORKERS, max(1, min(MOST_WORKERS, processors - spare)))
    bound = whole_number(PREFETCH, PREFETCH_BYTES)
    with contextlib.suppress(OSError):
        status = os.statvfs(SHARED_MEMORY)
        bound = min(bound, status.f_bavail * status.f_frsize // 2)
    count = min(asked, bound // max(1, batch_bytes))
    if count < asked:
        LOG.info(f"{count} of {asked} worker processes: batches of {batch_bytes:,} bytes ahead, {bound:,} at most")
    return count, max(1, min(MOST_AHEAD, bound // max(1, batch_bytes * count))) if count else 0


def whole_number(variable: str, default: int) -> int:
    """Return the value of a variable of the environment.

    Raises:
        InputError: it is no whole number of 0 or more.
    """
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{variable} must be a whole number of 0 or more, but got {text!r}.")
    return int(text)
