"""Where things of this machine lie: runs, and what runs share. Stdlib only.

``runs/<time>/`` is one run's results; ``runs/latest`` points to the newest. ``.cache/kondense`` beside it, or
the directory that KONDENSE_CACHE names, holds the artifacts of finished steps, checkpoints and the embedded
object store; deleting it costs nothing but time and the models published there.
"""

import os
import time
from pathlib import Path

RUNS = Path("runs")
LATEST = "latest"


def cache_dir() -> Path:
    """Return the directory of what runs share."""
    return Path(os.environ.get("KONDENSE_CACHE") or Path(".cache") / "kondense").absolute()


def store_dir() -> Path:
    """Return the directory of the embedded object store."""
    return cache_dir() / "store"


def new_run_dir() -> Path:
    """Make and return ``runs/<time>``, another one for each call."""
    while True:
        directory = RUNS / time.strftime("%Y-%m-%d_%H-%M-%S")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            time.sleep(0.2)
        else:
            return directory


def point_latest(directory: Path) -> None:
    """Let ``runs/latest`` point to ``directory`` if that is one of ``runs``; a link, replaced in one step."""
    if directory.absolute().parent != RUNS.absolute():
        return
    scratch = RUNS / f".{LATEST}.{os.getpid()}"
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(directory.name)
    os.replace(scratch, RUNS / LATEST)
