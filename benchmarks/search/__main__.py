"""`python -m benchmarks.search`: how good and how fast the search methods are.

    python -m benchmarks.search --seeds 50 --optimizers random,hyperband,bohb --output search.json
    python -m benchmarks.search --seeds 10 --optimizers bohb,optuna,hpbandster,dehb --problems counting-8
    python -m benchmarks.search --parts quality --optimizers bohb,dehb --seeds 50 --total 4
    python -m benchmarks.search --parts cost,clock,resume
    python -m benchmarks.search --parts front,warm --seeds 10

The parts: `quality` (regret under one budget), `cost` (seconds per suggestion), `clock` (16 workers on a simulated
clock), `resume` (epochs and seconds that promoted trials save on real training), `front` (hypervolume of two objectives
beside Optuna's samplers), `warm` (regret with the trials of an earlier search), `overhead` (wall time of a local search
over the training time of its trials), `compressed` (the front of manifests/experiments/compression.yaml beside the
candidates of a run, with a picture; it goes on where it was stopped). Peers run in environments of their
own, which uv makes on first use and keeps in its cache. With `--output`, `quality` can be stopped at any time: the
same command goes on with the runs that are missing, or that older code made.
"""

import argparse
import importlib
import json
import platform
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.search import accounting, compressed, compressed_picture, quality
from benchmarks.search.problems import PROBLEMS

WRITE_S = 5  # seconds between two writings of the results of `quality`
# By part; they are imported when they are needed, since one of them needs torch.
MODULES = {part: part for part in ("cost", "clock", "resume", "warm", "overhead")} | {"front": "fronts"}
SEEDED = ("front", "warm")
PARTS = ("quality", *MODULES, "compressed")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seeds", type=int, default=10, help="runs per problem and optimizer, seeds 0, 1, ...")
    parser.add_argument(
        "--total", type=int, default=accounting.TOTAL, help="budget of a run in multiples of the maximum"
    )
    parser.add_argument("--problems", default=",".join(PROBLEMS), help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--optimizers", default="random,hyperband,bohb", help=f"of {', '.join(quality.OPTIMIZERS)}")
    parser.add_argument("--networks", default=",".join(compressed.NETWORKS), help="of the compressed models")
    parser.add_argument("--images", type=int, default=4_000, help="of Fashion-MNIST for them")
    parser.add_argument("--work", type=Path, default=Path("build/compressed"), help="their models and picture")
    parser.add_argument("--output", type=Path, help="JSON file; written after every run, read to go on")
    arguments = parser.parse_args()
    parts, problems = _choose(arguments.parts, PARTS), _choose(arguments.problems, PROBLEMS)
    optimizers = _choose(arguments.optimizers, quality.OPTIMIZERS)

    report = _read(arguments.output) | {"python": platform.python_version(), "machine": platform.machine()}
    if "quality" in parts:
        results = []
        known = [quality.Result.from_json(entry) for entry in report.get("quality", [])]
        written = time.monotonic()
        for result in quality.measure(problems, optimizers, range(arguments.seeds), known, arguments.total):
            results.append(result)
            if time.monotonic() > written + WRITE_S:
                report["quality"] = [done.as_json() for done in quality.merge(known, results)]
                _write(arguments.output, report)
                written = time.monotonic()
        report["quality"] = [done.as_json() for done in quality.merge(known, results)]
        _write(arguments.output, report)
        print("\n".join([*quality.table(results), *quality.savings(results)]), flush=True)
    for part, name in MODULES.items():
        if part in parts:
            module = importlib.import_module(f"benchmarks.search.{name}")
            report[part] = module.measure(range(arguments.seeds)) if part in SEEDED else module.measure()
            print("\n".join(module.table(report[part])), flush=True)
            _write(arguments.output, report)
    if "compressed" in parts:
        networks = _choose(arguments.networks, compressed.NETWORKS)
        settings = [
            compressed.Setting(name, arguments.work / f"{name}-{arguments.images}", arguments.images)
            for name in networks
        ]
        report["compressed"] = compressed.measure(settings)
        print("\n".join(compressed.table(report["compressed"])), flush=True)
        compressed_picture.draw(report["compressed"], arguments.work / "compressed.png")
        _write(arguments.output, report)
    if "front" in parts:
        print(importlib.import_module("benchmarks.search.fronts").agreement(), flush=True)


def _choose(text: str, known: Collection[str]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise SystemExit(f"unknown name {name!r}; there are {', '.join(known)}.")
    return names


def _read(path: Path | None) -> dict[str, Any]:
    return json.loads(path.read_text()) if path is not None and path.exists() else {}


def _write(path: Path | None, report: dict[str, Any]) -> None:
    """Write the report whole: a kill leaves the last one."""
    if path is not None:
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(report, indent=1))
        partial.replace(path)


if __name__ == "__main__":
    main()
