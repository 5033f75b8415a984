"""One cell of the table: an operation on a network in a process of its own, with bounds of time and memory."""

import dataclasses
import json
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CPU_S = 60  # of one cell; the operation's trace alone may take as much, so a hang is told from slowness by its stack
MEMORY_BYTES = 12 << 30  # of address space beyond that of the parent


@dataclasses.dataclass(frozen=True)
class Cell:
    """The result of one operation on one network.

    Attributes:
        network: its name.
        operation: its name.
        result: ok, refused or fault.
        text: what was reached, why it was refused, or the last line of the traceback.
        where: the last lines of the traceback within Kondense.
        cpu_s: processor time.
        peak_bytes: the largest resident memory.
    """

    network: str
    operation: str
    result: str
    text: str = ""
    where: str = ""
    cpu_s: float = 0.0
    peak_bytes: int = 0


def run_cell(network: str, operation: str, function: Callable[[str, Path], str], *, cpu_s: int = CPU_S) -> Cell:
    """Run an operation in a forked process.

    Args:
        network: the network's name.
        operation: names the cell.
        function: takes the network and an empty directory; it returns a remark.
        cpu_s: processor time after which the process is killed, which is a fault.
    """
    with tempfile.TemporaryDirectory(prefix="kondense-zoo-") as scratch:
        answer = Path(scratch) / "answer.json"
        child = os.fork()
        if not child:
            _child(network, function, Path(scratch), answer, cpu_s)
        _, status, usage = os.wait4(child, 0)
        found = {"result": "fault", "text": _ending(status, cpu_s)}
        if answer.exists():
            found = json.loads(answer.read_text())
        return Cell(
            network, operation, cpu_s=usage.ru_utime + usage.ru_stime, peak_bytes=usage.ru_maxrss * 1024, **found
        )


def _ending(status: int, cpu_s: int) -> str:
    number = os.waitstatus_to_exitcode(status)
    if -number in (signal.SIGXCPU, signal.SIGKILL):
        return f"still running after {cpu_s} s of processor time"
    return f"ended with {number} and no answer"


def _child(network: str, function: Callable[[str, Path], str], scratch: Path, answer: Path, cpu_s: int) -> None:
    """Run the operation, write the answer and leave the process."""
    code = 1
    used = resource.getrusage(resource.RUSAGE_SELF)
    begun = int(used.ru_utime + used.ru_stime)
    resource.setrlimit(resource.RLIMIT_CPU, (begun + cpu_s, begun + cpu_s + 5))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES,) * 2)
    try:
        log = os.open(scratch / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        answer.write_text(json.dumps(attempt(network, function, scratch)))
        code = 0
    finally:
        os._exit(code)


def attempt(network: str, function: Callable[[str, Path], str], scratch: Path) -> dict[str, str]:
    """Run an operation in this process and return the cell's ``result``, ``text`` and ``where``."""
    from kondense.errors import KondenseError
    from kondense.networks.allowed import allowing
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps: list[Any] = []
    handle = register_optimizer_step_post_hook(lambda *_: steps.append(0))
    try:
        with allowing(networks=[network]):
            return {"result": "ok", "text": " ".join(function(network, scratch).split())}
    except KondenseError as error:
        text = str(error)
        if "\n" in text or steps:
            late = "after work" if steps else "in several lines"
            return {"result": "fault", "text": f"refused {late}: {' '.join(text.split())}", "where": _where(error)}
        return {"result": "refused", "text": text}
    except BaseException as error:  # every other exception is a fault, whatever its class
        return {
            "result": "fault",
            "text": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            "where": _where(error),
        }
    finally:
        handle.remove()


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "kondense" in frame.filename and "site-packages" not in frame.filename]
    return " < ".join(f"{frame.filename.partition('components/')[2]}:{frame.lineno}" for frame in reversed(ours[-3:]))


def cached(cell: Callable[[], Cell], path: Path) -> Cell:
    """Return a cell from its file, or run it and write the file."""
    if path.exists():
        return Cell(**json.loads(path.read_text()))
    started = time.time()
    made = cell()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.{started}")
    scratch.write_text(json.dumps(dataclasses.asdict(made), indent=1))
    scratch.replace(path)
    return made
