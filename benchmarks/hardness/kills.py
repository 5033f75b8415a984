"""Kill processes of a local run, or of a search, at random times until it has ended, and look at what is left.

The same command is given again whenever the driver was killed or a run ended with an error; processes of other kinds
are killed beside the living driver. A case has directories of its own for results, cache, store and temporary files.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kondense.store.lease import CHOOSING, TICKET
from kondense_pipelines.local.store import process_of, recorded

LONGEST_S = 600.0  # one command
POLL_S = 0.02
CLOSE_POLL_S = 0.001  # for a moment that must be met

Find = Callable[["Place", int], list[int]]  # the processes of a kind, of the driver with this id
Results = Callable[["Place"], dict[str, str]]  # digests, or texts, of what must be equal, by name


@dataclass(frozen=True)
class Place:
    """The directories of one case."""

    top: Path

    @property
    def out(self) -> Path:
        """The results."""
        return self.top / "out"

    @property
    def store(self) -> Path:
        """The embedded object store."""
        return self.top / "cache" / "store"

    def make(self) -> dict[str, str]:
        """Make the directories and return the variables that lead a command to them."""
        (self.top / "tmp").mkdir(parents=True)
        places = {"TMPDIR": str(self.top / "tmp"), "KONDENSE_CACHE": str(self.top / "cache")}
        return {**os.environ, **places, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@dataclass
class Case:
    """The outcome of one case.

    Attributes:
        kills: number by kind.
        again: commands that were given again.
        seconds: the time that it took.
        faults: what was wrong, each in one line.
        results: by name.
    """

    kills: Counter[str] = field(default_factory=Counter)
    again: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Keep a finished case."""
        path.write_text(json.dumps({**vars(self), "kills": dict(self.kills)}, indent=1))

    @classmethod
    def read(cls, path: Path) -> "Case":
        """Return a case that was kept."""
        content = json.loads(path.read_text())
        return cls(**{**content, "kills": Counter(content["kills"])})


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_of(pid: int) -> str:
    """Return the command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def warm_servers(place: Place, driver: int) -> list[int]:
    """Return the driver's warm server."""
    return [pid for pid in children(driver) if "local.warm_server" in command_of(pid)]


def stages(place: Place, driver: int) -> list[int]:
    """Return the processes of steps: forked from the warm server, or cold."""
    cold = [pid for pid in children(driver) if "local.cold" in command_of(pid)]
    return [*cold, *(pid for server in warm_servers(place, driver) for pid in children(server))]


def gateways(place: Place, driver: int) -> list[int]:
    """Return the gateway of the embedded store."""
    _, process = recorded(place.store)
    return [process.pid] if process else []


def trials(place: Place, driver: int) -> list[int]:
    """Return the processes of a search's trials."""
    guards = [pid for pid in children(driver) if "local_search/guard.py" in command_of(pid)]
    return [pid for guard in guards for pid in children(guard)]


RUN: Mapping[str, Find] = {
    "driver": lambda place, driver: [driver],
    "warm server": warm_servers,
    "step": stages,
    "gateway": gateways,
}
SEARCH: Mapping[str, Find] = {
    "driver": lambda place, driver: [driver],
    "driver that writes its journal": lambda place, driver: [driver],
    "trial": trials,
    "gateway": gateways,
}


@dataclass(frozen=True)
class Subject:
    """What is killed.

    Attributes:
        name: in tables.
        command: writes its results to the directory ``out``.
        kinds: its kinds of processes; drawn evenly among them.
        results: what a finished command must have made; nothing in it may depend on the time.
        variables: of the command, beside its places.
    """

    name: str
    command: Sequence[str]
    kinds: Mapping[str, Find]
    results: Results
    variables: Mapping[str, str] = field(default_factory=dict)


def run_case(subject: Subject, place: Place, *, kills: int, rng: random.Random, spread_s: float) -> Case:
    """Give the command until it ends with 0, kill meanwhile, and return what was found.

    Args:
        subject: the command.
        place: the directories, which do not exist yet.
        kills: number of kills in all.
        rng: draws the kinds and the times.
        spread_s: times between two kills are even in [0, spread_s].
    """
    environment = {**place.make(), **subject.variables}
    case, left, began_s = Case(), kills, time.monotonic()
    plan = [(rng.choice(list(subject.kinds)), rng.uniform(0.0, spread_s)) for _ in range(kills)]
    while True:
        log = place.top / f"output-{case.again}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                subject.command, cwd=place.top, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        while left and process.poll() is None:
            kind, wait_s = plan[kills - left]
            if not kill(kind, subject.kinds[kind], place, process, wait_s):
                break
            case.kills[kind] += 1
            left -= 1
        code = ended(process, case)
        if "Traceback" in log.read_text(errors="replace"):
            case.faults.append(f"a traceback in {log}")
        if code == 0:
            break
        case.again += 1
        if case.again > kills + 2:
            case.faults.append(f"the command still ends with {code}: {last_line(log)}")
            break
    case.kills["no time left"] = left
    case.seconds = time.monotonic() - began_s
    case.faults += remains(place)
    case.results = subject.results(place) if code == 0 else {}
    return case


def kill(kind: str, find: Find, place: Place, process: "subprocess.Popen[bytes]", wait_s: float) -> bool:
    """Kill a process of the kind after the time; return False if the command has ended before."""
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            return False
        time.sleep(POLL_S)
    journal = place.out / "journal.jsonl"
    size = journal.stat().st_size if journal.exists() else 0
    while process.poll() is None:
        victims = find(place, process.pid)
        if "journal" in kind and (not journal.exists() or journal.stat().st_size == size):
            victims = []
        if victims:
            try:
                os.kill(victims[0], signal.SIGKILL)
            except ProcessLookupError:
                continue
            if victims[0] == process.pid:
                process.wait()
            return True
        time.sleep(CLOSE_POLL_S if "journal" in kind else POLL_S)
    return False


def ended(process: "subprocess.Popen[bytes]", case: Case) -> int:
    """Wait for the end of a command and return its exit code."""
    try:
        return process.wait(LONGEST_S)
    except subprocess.TimeoutExpired:
        case.faults.append(f"the command did not end within {LONGEST_S:g} s")
        process.kill()
        return process.wait()


def last_line(log: Path) -> str:
    """Return the last line of a log."""
    return ["", *log.read_text(errors="replace").splitlines()][-1]


def remains(place: Place) -> list[str]:
    """Return what a finished command must not leave: temporary files, processes, tickets."""
    found = [f"{path} is left" for path in (place.top / "tmp").iterdir()]
    found += [f"{path} is left" for path in place.out.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]
    for part in ("artifacts", "steps"):
        found += [f"{path} is left" for path in (place.top / "cache" / part).rglob(".*")]
    database = place.store / "volume" / "meta.db"
    if database.exists():
        with sqlite3.connect(database) as connection:
            names = [os.fsdecode(name) for (name,) in connection.execute("select name from jfs_edge")]
        found += [f"the ticket {name} is left" for name in names if TICKET.match(name) or name.startswith(CHOOSING)]
    mark = os.fsencode(f"KONDENSE_CACHE={place.top}/cache\0")
    for path in Path("/proc").glob("[0-9]*"):
        try:
            mine = mark in (path / "environ").read_bytes() or str(place.top) in command_of(int(path.name))
        except OSError:
            continue
        if mine and process_of(int(path.name)):
            found.append(f"process {path.name} is left: {command_of(int(path.name))[:80]}")
    return found


def kondense(*words: str) -> list[str]:
    """Return the words of a ``kondense`` command."""
    return [sys.executable, "-m", "kondense_pipelines.cli.app", *words]
