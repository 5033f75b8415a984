"""A memory limit of a process tree: a control group of the kernel's where root may make one, else a watch.

A group bounds the page cache, too, which the kernel gives up for other memory. A tree above the limit is killed.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.scale.memory import set_size, tree

ROOT = Path("/sys/fs/cgroup")
NAME = "kondense-benchmark"
# Root of the hierarchy, and the files of the limit, of what was refused for it, and of its use by kind.
VERSIONS = {
    "cgroup v2": (ROOT, "memory.max", "memory.events"),
    "cgroup v1": (ROOT / "memory", "memory.limit_in_bytes", "memory.oom_control"),
}
HELD = ("total_rss", "total_shmem", "anon", "shmem")  # of memory.stat: what the kernel cannot take back
PAUSE_S = 0.1


class Limit:
    """The limit of one process tree.

    Attributes:
        kind: of the limit: a key of VERSIONS, or ``watch``.
        peak: of what the tree held, in bytes: in a group anonymous and shared memory, else proportional set sizes.
    """

    def __init__(self, kind: str, limit_bytes: int, directory: Path | None = None) -> None:
        self.kind, self.limit_bytes, self.directory, self.peak = kind, limit_bytes, directory, 0

    def command(self, command: Sequence[str]) -> list[str]:
        """Return ``command`` as one that begins within the group."""
        if self.directory is None:
            return list(command)
        return ["sh", "-c", f'echo $$ > {self.directory}/cgroup.procs && exec "$@"', "sh", *command]

    def look(self, pid: int) -> None:
        """Note what the tree of ``pid`` holds; without a group, kill it if that is too much."""
        if self.directory is not None:
            lines = (self.directory / "memory.stat").read_text().splitlines()
            self.peak = max(self.peak, sum(int(line.split()[1]) for line in lines if line.split()[0] in HELD))
            return
        held = sum(map(set_size, tree(pid)))
        self.peak = max(self.peak, held)
        if held > self.limit_bytes:
            self.kill(pid)
            raise MemoryError(f"{held:,} bytes, {self.limit_bytes:,} at most")

    def processes(self, pid: int) -> list[int]:
        """Return the processes of the group, or the tree of ``pid``."""
        if self.directory is None:
            return tree(pid)
        return [int(line) for line in (self.directory / "cgroup.procs").read_text().split()]

    def kill(self, pid: int) -> int:
        """End all processes at once, as a machine that fails does, and return their number."""
        found = self.processes(pid)
        for each in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        return len(found)

    def kills(self) -> int:
        """Return how many processes the kernel has killed for want of memory."""
        if self.directory is None:
            return 0
        _, _, events = VERSIONS[self.kind]
        lines = dict(line.split() for line in (self.directory / events).read_text().splitlines())
        return int(lines["oom_kill"])


@contextlib.contextmanager
def limited(limit_bytes: int) -> Iterator[Limit]:
    """Provide a limit, whose group is removed after the block."""
    for kind, (root, file, _) in VERSIONS.items():
        directory = root / f"{NAME}-{os.getpid()}"
        if not (root / "memory.stat").exists() and not (root / file).exists():
            continue
        try:
            directory.mkdir()
            (directory / file).write_text(str(limit_bytes))
        except OSError:
            with contextlib.suppress(OSError):
                directory.rmdir()
            continue
        try:
            yield Limit(kind, limit_bytes, directory)
        finally:
            _removed(directory)
        return
    yield Limit("watch", limit_bytes)


def _removed(directory: Path) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            directory.rmdir()
            return
        time.sleep(PAUSE_S)
    raise TimeoutError(f"{directory} still has processes")
