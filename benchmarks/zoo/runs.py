"""`python -m benchmarks.zoo.runs`: a run of its own for each network, as a user starts it.

    python -m benchmarks.zoo.runs --networks constructs,built-in,torchvision:resnet18

Each is one `kondense run --dataset folder` at one epoch on 200 pictures of three classes, with all standard candidates:
it works if the command ends with a report in which no candidate failed. Finished ones are kept as lines of
OUTPUT/runs.jsonl, so that the command goes on where it was stopped.
"""

import argparse
import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.zoo.networks import SIZES, chosen

PICTURES, CLASSES = 200, ("heron", "otter", "vole")
EPOCHS = ("train.epochs=1", "prune.epochs=1", "prune.steps=1", "prune_weights.epochs=1", "distill.epochs=1")
REPOSITORY = Path(__file__).parents[2]
WORKS, PARTLY, REFUSED, FAULT = "ok", "partly", "refused", "fault"


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of one run.

    Attributes:
        network: its name.
        result: ``ok``; ``partly``: the report tells of candidates that failed; ``refused`` in one line before work;
            ``fault``.
        candidates: how many the report has, the teacher among them.
        text: the error, or the candidates that are not there and why.
        cpu_s: processor time of the command and its steps.
    """

    network: str
    result: str
    candidates: int
    text: str
    cpu_s: float


def make_pictures(folder: Path, size: int) -> Path:
    """Write pictures of coloured noise, each class of another tint, and return their folder."""
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        label = number % len(CLASSES)
        pixels = rng.integers(0, 160, (size, size, 3))
        pixels[..., label] += 95
        place = folder / CLASSES[label] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(place)
    return folder


def run(network: str, scratch: Path, seconds: int) -> Run:
    """Run one network and return what came of it."""
    size = SIZES[network]
    pictures = scratch / f"pictures-{size}"
    if not pictures.exists():
        make_pictures(pictures, size)
    output = scratch / "runs" / re.sub(r"[^A-Za-z0-9_.]+", "-", network)
    command = [str(Path(sys.executable).with_name("kondense")), "run", "--dataset", "folder"]
    command += ["--source", str(pictures), "--image-size", str(size), "--network", network, "--output", str(output)]
    command += [word for setting in EPOCHS for word in ("--set", setting)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", "NO_COLOR": "1"}
    try:
        ended = subprocess.run(
            command, cwd=scratch, env=environment, timeout=seconds, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return Run(network, FAULT, 0, f"not ready after {seconds} s", _cpu_since(before))
    return judged(network, output, ended.returncode, ended.stdout + ended.stderr, _cpu_since(before))


def judged(network: str, output: Path, code: int, said: str, cpu_s: float) -> Run:
    """Return what a finished command means."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    found = sorted(output.rglob("report.json"))
    last = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
    if not found:
        refused = code == 2 and "Traceback" not in said
        return Run(network, REFUSED if refused else FAULT, 0, last[:300], cpu_s)
    report = json.loads(found[-1].read_text())
    failed = [f"{each['name']}: {each['reason']}" for each in report.get("failed", [])]
    result = FAULT if "Traceback" in said else PARTLY if failed or code else WORKS
    return Run(network, result, len(report["candidates"]) + 1, "; ".join(failed)[:600] or (last if code else ""), cpu_s)


def _cpu_since(before: resource.struct_rusage) -> float:
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime, 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.runs", description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", default="built-in", help="names, parts of names or groups, as of benchmarks.zoo")
    parser.add_argument("--seconds", type=int, default=900, help="after which a run is given up")
    parser.add_argument("--most", type=int, default=0, help="runs to start now; 0: all that are left")
    parser.add_argument("--output", type=Path, default=Path("build/zoo-runs"))
    arguments = parser.parse_args()
    journal = arguments.output.absolute() / "runs.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["network"] for line in journal.read_text().splitlines()} if journal.exists() else set()
    left = [name for name in chosen(arguments.networks.split(",")) if name not in done]
    for network in left[: arguments.most or None]:
        made = run(network, journal.parent, arguments.seconds)
        print(f"{made.result:8} {network} {made.candidates} candidates, {made.cpu_s:.0f} s {made.text}", flush=True)
        with journal.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(made)) + "\n")


if __name__ == "__main__":
    main()
