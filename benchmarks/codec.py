"""Cost of weights.kz: processor time and memory to encode and decode ten million random weights of each kind.

    python -m benchmarks.codec [--kinds "8 bits;float32"] [--millions 10]

Each kind is one tensor and has a process of its own. Memory is the resident peak above what was there before, in units
of the same weights as float32.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kondense.codec.kz import decode, encode

ROW = 2500  # columns of the tensor
PAUSE_S = 0.005
MEGA = 10**6


def kinds() -> dict[str, Callable[[np.random.Generator, int], np.ndarray]]:
    """Return what makes the weights of each kind, [count], from random numbers."""

    def normal(rng: np.random.Generator, count: int, scale: float, bits: int) -> np.ndarray:
        largest = 2 ** (bits - 1) - 1
        values = np.rint(scale * rng.standard_normal(count, np.float32))
        return np.clip(values, -largest, largest).astype(np.int8)

    def zeroed(rng: np.random.Generator, values: np.ndarray, share: float) -> np.ndarray:
        values[rng.random(len(values), np.float32) < share] = 0  # a product would be -0.0, as no pruning step leaves it
        return values

    def smooth(rng: np.random.Generator, count: int) -> np.ndarray:
        noise = rng.standard_normal(count + 8, np.float32)
        return np.clip(np.rint(12 * sum(noise[n : n + count] for n in range(8))), -127, 127).astype(np.int8)

    def floats(rng: np.random.Generator, count: int) -> np.ndarray:
        return 0.02 * rng.standard_normal(count, np.float32)

    return {
        "8 bits": lambda rng, count: normal(rng, count, 30, 8),
        "4 bits": lambda rng, count: normal(rng, count, 2.5, 4),
        "8 bits, half of them zero": lambda rng, count: zeroed(rng, normal(rng, count, 30, 8), 0.5),
        "8 bits, neighbours alike": smooth,
        "float32": floats,
        "float32, 90 % zeros": lambda rng, count: zeroed(rng, floats(rng, count), 0.9),
    }


def main() -> None:
    """Print a table; with --kind, one kind's figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", help="joined by semicolons; by default all")
    parser.add_argument("--millions", type=float, default=10.0)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.kind:
        print(json.dumps(measured(chosen.kind, int(chosen.millions * MEGA))))
        return
    print("| weights | encode, CPU s | decode, CPU s | memory to encode | to decode | bytes of a weight |")
    print("|---|---|---|---|---|---|")
    for kind in chosen.kinds.split(";") if chosen.kinds else kinds():
        command = [sys.executable, "-m", "benchmarks.codec", "--kind", kind, "--millions", str(chosen.millions)]
        one = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(
            f"| {kind} | {one['encode']['cpu_s']:.2f} | {one['decode']['cpu_s']:.2f} | {one['encode']['sizes']:.1f} |"
            f" {one['decode']['sizes']:.1f} | {one['bytes']:.3f} |",
            flush=True,
        )


def measured(kind: str, count: int) -> dict[str, Any]:
    """Return what one kind takes, after a small tensor that loads what is loaded once."""
    torch.set_num_threads(1)
    decode(encode({}, {"small": tensor(kind, 100 * ROW)}))
    weights = {"weights": tensor(kind, count // ROW * ROW)}
    float_bytes = 4 * weights["weights"].numel()
    content, encoding = watched(lambda: encode({}, weights))
    (_, decoded), decoding = watched(lambda: decode(content))
    assert torch.equal(decoded["weights"], weights["weights"])
    for took in (encoding, decoding):
        took["sizes"] = took.pop("grown") / float_bytes
    return {"encode": encoding, "decode": decoding, "bytes": len(content) / weights["weights"].numel()}


def tensor(kind: str, count: int) -> torch.Tensor:
    return torch.from_numpy(kinds()[kind](np.random.default_rng(0), count).reshape(-1, ROW))


def watched(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return a result, with the processor time of the work and the growth of resident memory at its peak."""
    gc.collect()
    before, highest, ended = resident(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(PAUSE_S):
            highest[0] = max(highest[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = resource.getrusage(resource.RUSAGE_SELF)
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    ended.set()
    watcher.join()
    cpu_s = after.ru_utime + after.ru_stime - began.ru_utime - began.ru_stime
    return result, {"cpu_s": cpu_s, "grown": max(highest[0], resident()) - before}


def resident() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
