"""The processes that train one network together, and what they exchange.

A stage with several devices runs as a whole in each of its processes: all take the same decisions from the same data,
each trains on its part of every batch, and the first one alone writes. ``kondense.worker`` joins them; everywhere else
a process is alone.
"""

import contextlib
import contextvars
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

from kondense.errors import InputError, KondenseError

T = TypeVar("T")


class PeerError(KondenseError):
    """Another process of the group failed; it tells why."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """The group that this process belongs to.

    Every method that exchanges must be called by all processes, in the same order.

    Attributes:
        rank: the number of this process, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def several(self) -> bool:
        """Whether there is more than this process."""
        return self.count > 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def part(self, length: int) -> range:
        """Return the part of ``length`` rows that is this process's; the parts' lengths differ by at most one."""
        return range(length * self.rank // self.count, length * (self.rank + 1) // self.count)

    def from_first(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns in the first process, which alone calls it; tensors must be on the CPU.

        Raises:
            PeerError: it raised there; the first process raises its own error.
        """
        if not self.several:
            return compute()
        box: list[tuple[bool, T | str]] = [(False, "")]
        failure: Exception | None = None
        if self.first:
            try:
                with alone():
                    box = [(True, compute())]
            except Exception as error:  # whatever it is, the others wait for the answer
                failure, box = error, [(False, str(error))]
        distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        if failure is not None:
            raise failure
        done, value = box[0]
        if not done:
            raise PeerError(str(value))
        return value  # type: ignore[return-value]

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over all processes."""
        if not self.several:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        sums: list[float] = total.tolist()
        return sums

    def any(self, *flags: bool) -> list[bool]:
        """Return of each flag whether it is set in any process."""
        return [total > 0 for total in self.sums([float(flag) for flag in flags])]

    def gathered(self, part: Tensor, length: int) -> Tensor:
        """Return all rows, [length, ...] on the CPU, of which each process has those of ``part(length)``."""
        if not self.several:
            return part
        most = -(-length // self.count)
        own = part.new_zeros(most, *part.shape[1:])
        own[: len(part)] = part
        parts = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(parts, own)
        sizes = [len(dataclasses.replace(self, rank=rank).part(length)) for rank in range(self.count)]
        return torch.cat([each[:size] for each, size in zip(parts, sizes, strict=True)])

    def check_alike(self, description: Sequence[str], what: str) -> None:
        """Raise KondenseError in every process unless all have the same lines of description of ``what``."""
        if not self.several:
            return
        every: list[list[str]] = [[] for _ in range(self.count)]
        distributed.all_gather_object(every, list(description))
        for rank, other in enumerate(every):
            for mine, theirs in itertools.zip_longest(every[0], other, fillvalue="nothing"):
                if mine != theirs:
                    raise KondenseError(
                        f"The {self.count} processes must have the same {what}, but where process 0 has {mine}, process"
                        f" {rank} has {theirs}."
                    )

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Set tensors to their values in the first process, in place."""
        for tensor in tensors if self.several else ():
            flat = tensor.to(torch.uint8 if tensor.dtype is torch.bool else tensor.dtype).contiguous()
            distributed.broadcast(flat, src=0)
            tensor.copy_(flat)


_current: contextvars.ContextVar[Processes | None] = contextvars.ContextVar("processes", default=None)


def current() -> Processes:
    """Return the group of this process."""
    return _current.get() or Processes()


@contextlib.contextmanager
def joined(processes: Processes) -> Iterator[None]:
    """Be one of several processes in the block; torch's process group must have been initialised."""
    token = _current.set(processes)
    try:
        yield
    finally:
        _current.reset(token)


def alone() -> contextlib.AbstractContextManager[None]:
    """Return a context in which this process exchanges nothing with others."""
    return joined(Processes())


def check_devices(devices: int) -> None:
    """Raise InputError unless ``devices`` is the number of processes in this group, or 0."""
    count = current().count
    if devices not in (0, count):
        raise InputError(
            f"devices must be 0 or {count} here, where training is done in {count} process{'es' * (count > 1)}, but got"
            f" {devices}; `kondense run --set train.devices={devices}` and `python -m kondense.cli` start several."
        )
