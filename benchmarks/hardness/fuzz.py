"""Read mutated inputs and count what comes of them: read, refused in one line, or an escape."""

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.hardness.mutators import mutations
from benchmarks.hardness.parsers.parser import Parser

LIMIT_S = 2.0  # of processor time, so that other work beside it does not count
STUCK_S = 30.0  # without an answer, a process is ended: the code does not return to Python
START_S = 300.0  # of a process, which imports much beside other work
MEMORY_FACTOR, MEMORY_FREE = 20, 2**26
ADDRESS_SPACE = 2**33  # bytes beside those of the start; what takes more gets a MemoryError
READ, REFUSED, TRACEBACK, HANG, MEMORY, KILLED = RESULTS = (
    "read", "refused", "traceback", "hang", "memory", "killed",
)  # fmt: skip
ESCAPES = RESULTS[2:]


class OverdueError(Exception):
    """An input took more than ``LIMIT_S``."""


@dataclasses.dataclass
class Counts:
    """What came of the inputs of one parser; ``escapes`` describes the first ones of each kind."""

    parser: str
    results: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    escapes: dict[str, str] = dataclasses.field(default_factory=dict)
    slowest_s: float = 0.0
    largest_bytes: int = 0

    def add(self, number: int, result: str, text: str, seconds: float, memory: int) -> None:
        """Count one input."""
        self.results[result] += 1
        self.slowest_s, self.largest_bytes = max(self.slowest_s, seconds), max(self.largest_bytes, memory)
        if result in ESCAPES:
            self.escapes.setdefault(f"{result}: {text}", f"input {number}, {seconds:.1f} s, {memory / 2**20:.0f} MiB")

    @property
    def escaped(self) -> int:
        """The number of escapes."""
        return sum(self.results[result] for result in ESCAPES)


def fuzz(parser: Parser, *, seed: int, count: int) -> Counts:
    """Return the counts of ``count`` inputs, read in a process that is started anew where it dies or hangs."""
    counts, first = Counts(parser.name), 0
    context = multiprocessing.get_context("fork")
    while first < count:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(parser, seed, first, count - first, (ours, theirs)))
        process.start()
        theirs.close()
        try:
            stuck, begun = False, False
            while first < count and not stuck:
                stuck = not ours.poll(STUCK_S if begun else START_S)
                begun = True
                if not stuck:
                    outcome = ours.recv()
                    if isinstance(outcome, str):
                        raise RuntimeError(f"{parser.name}: a valid sample is not read: {outcome}")
                    counts.add(first, *outcome)
                    first += 1
        except EOFError:
            pass
        if first < count:
            process.kill()
            counts.add(first, HANG if stuck else KILLED, "the process was ended", STUCK_S if stuck else 0.0, 0)
            first += 1
        process.join()
    return counts


def fuzz_here(parser: Parser, *, seed: int, count: int) -> Counts:
    """Return the counts of ``count`` inputs, read in this process."""
    counts = Counts(parser.name)
    for number, outcome in enumerate(_outcomes(parser, seed, 0, count)):
        counts.add(number, *outcome)
    return counts


def _serve(parser: Parser, seed: int, first: int, count: int, pipe: tuple[Connection, Connection]) -> None:
    reading, answers = pipe
    reading.close()  # the parent's end: if it dies, the next answer fails, and so does this process
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, resource.RLIM_INFINITY))
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        for outcome in _outcomes(parser, seed, first, count):
            answers.send(outcome)
    except Exception:  # of the samples: those of mutated inputs are outcomes
        answers.send(traceback.format_exc())


def _outcomes(parser: Parser, seed: int, first: int, count: int) -> Iterator[tuple[str, str, float, int]]:
    with tempfile.TemporaryDirectory(prefix="kondense-hardness-") as scratch, _alarm():
        place = Path(scratch)
        samples = parser.make(place)
        for sample in samples:  # valid ones, so that what is loaded once counts for no input
            parser.read(sample, place)
        for content in mutations(parser.kind, samples, seed=seed, first=first, count=count):
            yield _outcome(parser, content, place)


def _outcome(parser: Parser, content: bytes, place: Path) -> tuple[str, str, float, int]:
    from kondense.errors import EXPECTED, LONGEST_LINE
    from kondense.katib.spec import ExperimentError

    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    began = time.process_time()
    result, text = READ, ""
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        with warnings.catch_warnings(action="ignore"):
            parser.read(content, place)
    except OverdueError:
        result, text = HANG, "over 2 s"
    except EXPECTED as error:
        lines = str(error).splitlines() or [""]
        listed = isinstance(error, ExperimentError)  # one line for each rule that is broken
        plain = (listed or len(lines) == 1) and max(map(len, lines)) <= LONGEST_LINE
        result, text = (REFUSED, "") if plain else (TRACEBACK, f"not one line: {str(error)[:200]!r}")
    except MemoryError:
        result, text = MEMORY, "MemoryError"
    except BaseException as error:  # whatever it is, it escaped
        result, text = TRACEBACK, f"{type(error).__name__} {_place_of(error)}: {str(error)[:80]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds, taken = time.process_time() - began, _memory("VmHWM") - before
    bound = MEMORY_FACTOR * len(content) + MEMORY_FREE + parser.allowance
    if result in (READ, REFUSED) and taken > bound:
        result, text = MEMORY, f"{taken / 2**20:.0f} MiB"
    return result, text, seconds, taken


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/kondense" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def overdue(number: int, frame: FrameType | None) -> Any:
        raise OverdueError

    before = signal.signal(signal.SIGPROF, overdue)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
