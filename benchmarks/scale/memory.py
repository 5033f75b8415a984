"""Peak memory of a process tree that trains one epoch from shards, at three numbers of images.

The limit is kept by a watch, not by a cgroup, which not every machine lets a program make: the proportional set size of
all processes of the tree is summed every 50 ms, and a tree above the limit is killed. Under systemd,
``systemd-run --user --scope -p MemoryMax=2G`` before the command bounds the page cache, too.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.scale.photos import IMAGE_BYTES
from benchmarks.scale.prepared import prepared_directory

SIZES = (1, 4, 16)
PAUSE_S = 0.05


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Print peak memory and images per second by the number of images."""
    largest = int(arguments.gib * 2**30 / IMAGE_BYTES)
    figures = {}
    print("| images | decoded | peak memory of the tree | of its growth: MiB | images/s |\n|---|---|---|---|---|")
    for size in SIZES:
        count = largest * size // SIZES[-1]
        data = prepared_directory(directory, count, "shards", among=largest)
        command = [sys.executable, "-m", "benchmarks.scale.epoch", str(data)]
        peak, output = watched(command, int(arguments.limit_gib * 2**30))
        before, trained, seconds = output.split()[-3:]
        rate = int(trained) / float(seconds)
        figures[f"{size}x"] = {"images": count, "peak_bytes": peak, "before_bytes": int(before), "images_per_s": rate}
        print(
            f"| {count:,} ({size}x) | {count * IMAGE_BYTES / 2**30:.2f} GiB | {peak / 2**20:,.0f} MiB |"
            f" {(peak - int(before)) / 2**20:,.0f} | {rate:,.0f} |",
            flush=True,
        )
    return figures


def watched(command: list[str], limit_bytes: int) -> tuple[int, str]:
    """Return the peak memory of a command's process tree, in bytes, and its output.

    Raises:
        MemoryError: the tree exceeded the limit and was killed.
        subprocess.CalledProcessError: the command failed.
    """
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        while child.poll() is None:
            held = sum(map(set_size, tree(child.pid)))
            peak = max(peak, held)
            if held > limit_bytes:
                os.killpg(child.pid, signal.SIGKILL)
                raise MemoryError(f"{held:,} bytes, {limit_bytes:,} at most")
            time.sleep(PAUSE_S)
        assert child.stdout
        output = child.stdout.read()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return peak, output


def tree(pid: int) -> list[int]:
    """Return the processes that descend from ``pid``, and itself."""
    found = [pid]
    for each in found:
        try:
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it ended
            continue
    return found


def set_size(pid: int | str) -> int:
    """Return the proportional set size of a process in bytes: shared pages count once in a tree."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
