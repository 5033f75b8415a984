"""`python -m benchmarks.slowed`: tests whose processes are stopped at random, as on a machine with too much to do.

    python -m benchmarks.slowed tests/unit/store tests/e2e --seed 0 --longest 20
    python -m benchmarks.slowed --busy 20

Every process of the tests, their own one among them, may be stopped (SIGSTOP) and go on later; with ``--busy`` the
tests share one core with as many busy loops. Further options are those of pytest. What the largest process took is
printed with the test that ran then: a wait, a poll or a retry that keeps what it gets shows as memory that grows with
the time. The command ends with 1 if a test failed or a process took more than ``--limit``.
"""

import argparse
import contextlib
import heapq
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# Tests with servers and clients, and with processes that wait for each other.
TESTS = (
    "tests/contract/katib",
    "tests/e2e",
    "tests/integration/test_katib_search_component.py",
    "tests/integration/test_preemption.py",
    "tests/integration/test_search.py",
    "tests/integration/test_shards.py",
    "tests/integration/test_store.py",
    "tests/unit/data",
    "tests/unit/deploy",
    "tests/unit/katib_search",
    "tests/unit/launch",
    "tests/unit/local_search",
    "tests/unit/pipelines",
    "tests/unit/store",
    "tests/unit/suggestion",
    "tests/unit/train_job",
    "tests/unit/trial",
)
MARK = "KONDENSE_SLOWED"  # environment variable of all processes of a run, with the file that names the running test
SAMPLE_S = 0.1
LARGEST = 5  # tests in the table


def pytest_runtest_logstart(nodeid: str, location: object) -> None:
    """Name the test that begins, for the process that watches (this module is a plugin of the tests' process)."""
    Path(os.environ[MARK]).write_text(nodeid)


@dataclass
class Watch:
    """What is seen of the processes of a run.

    Attributes:
        current: the file that names the running test.
        peaks: the most memory of a process, in bytes, by test.
        together: the most memory of all processes at once, in bytes; what they share counts for each.
        stops: how many times a process was stopped.
    """

    current: Path
    peaks: dict[str, int] = field(default_factory=dict)
    together: int = 0
    stops: int = 0

    def processes(self) -> list[int]:
        """Return the processes of the run, those in sessions of their own included."""
        mark, found = os.fsencode(f"{MARK}={self.current}\0"), []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (path / "environ").read_bytes():
                    found.append(int(path.name))
        return found

    def sample(self, pids: list[int]) -> None:
        """Note the memory of the processes."""
        test = self.current.read_text()
        sizes = [resident_bytes(pid) for pid in pids]
        self.peaks[test] = max([self.peaks.get(test, 0), *sizes])
        self.together = max(self.together, sum(sizes))

    def largest(self) -> list[tuple[str, int]]:
        """Return the tests with the largest processes, and the bytes of each."""
        return heapq.nlargest(LARGEST, self.peaks.items(), key=lambda each: each[1])


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def watched(process: "subprocess.Popen[bytes]", watch: Watch, options: argparse.Namespace) -> int:
    """Stop processes at random until the tests have ended, and return their exit code."""
    rng = random.Random(options.seed)
    stopped: list[tuple[float, int]] = []  # until when, and which
    next_s = time.monotonic()
    try:
        while process.poll() is None:
            now_s = time.monotonic()
            watch.sample(pids := watch.processes())
            while stopped and stopped[0][0] <= now_s:
                _signal(heapq.heappop(stopped)[1], signal.SIGCONT)
            if pids and options.longest and now_s >= next_s:
                pid = rng.choice(pids)
                if pid not in {each for _, each in stopped} and _signal(pid, signal.SIGSTOP):
                    watch.stops += 1
                    heapq.heappush(stopped, (now_s + rng.uniform(0.0, options.longest), pid))
                next_s = now_s + rng.uniform(0.0, 2 * options.every)
            time.sleep(SAMPLE_S)
    finally:
        for _, pid in stopped:
            _signal(pid, signal.SIGCONT)
        process.terminate()  # nothing happens if it has ended
    return process.returncode


def _signal(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep this process and its children to one core, together with busy loops."""
    cores = os.sched_getaffinity(0)
    if count:
        os.sched_setaffinity(0, {min(cores)})
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
        os.sched_setaffinity(0, cores)


def main(arguments: list[str] | None = None) -> int:
    """Run the tests and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slowed", description=__doc__.partition("\n")[0])
    parser.add_argument("tests", nargs="*", default=TESTS, help="paths; by default those with servers and clients")
    parser.add_argument("--seed", type=int, default=0, help="of the processes that are stopped, and when")
    parser.add_argument("--every", type=float, default=2.0, help="mean seconds between two stops")
    parser.add_argument("--longest", type=float, default=10.0, help="seconds of the longest stop; 0: none")
    parser.add_argument("--busy", type=int, default=0, help="busy loops on the one core of the tests; 0: all cores")
    parser.add_argument("--limit", type=float, default=4.0, help="GiB that a process may have")
    options, further = parser.parse_known_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # nothing stays stopped
    with tempfile.TemporaryDirectory(prefix="slowed-") as scratch, busy(options.busy):
        watch = Watch(Path(scratch) / "current")
        watch.current.write_text("before the first test")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.slowed", "-m", "not slow and not docker"]
        began_s = time.monotonic()
        process = subprocess.Popen([*command, *options.tests, *further], env={**os.environ, MARK: str(watch.current)})
        try:
            code = watched(process, watch, options)
        finally:  # of a run that is stopped, too
            seconds, together = time.monotonic() - began_s, watch.together / 2**20
            print(f"{watch.stops} stops in {seconds:.0f} s, {together:,.0f} MiB in all; the largest processes:")
            for test, size in watch.largest():
                print(f"| {size / 2**20:,.0f} MiB | {test} |", flush=True)
    return int(code != pytest.ExitCode.OK or max(watch.peaks.values()) > options.limit * 2**30)


if __name__ == "__main__":
    sys.exit(main())
