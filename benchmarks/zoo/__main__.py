"""`python -m benchmarks.zoo`: which operations work on which networks.

    python -m benchmarks.zoo --networks constructs,built-in --jobs 2
    python -m benchmarks.zoo --networks torchvision:resnet18,timm --operations l1,export

Every finished cell is kept as a JSON file in CACHE/REVISION, so that the command goes on where it was stopped. The
tables and the cells are written to OUTPUT/zoo.md and OUTPUT/zoo.json.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import re
from pathlib import Path

from benchmarks.zoo.cells import CPU_S, Cell, cached, run_cell
from benchmarks.zoo.networks import GROUPS, chosen
from benchmarks.zoo.table import tables


def main() -> None:
    from benchmarks.zoo.operations import OPERATIONS as OURS
    from benchmarks.zoo.peers import PEERS

    functions = OURS | PEERS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", default="", help=f"names, parts of names, or {', '.join(GROUPS)}; all when empty")
    parser.add_argument("--operations", default=",".join(OURS), help=f"of {', '.join(functions)}")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, one thread each")
    parser.add_argument("--cpu-seconds", type=int, default=CPU_S, help="processor time of a cell")
    parser.add_argument("--revision", default="now", help="names the source's state in the cache")
    parser.add_argument("--again", action="store_true", help="run the cells again that did not work")
    parser.add_argument("--cache", type=Path, default=Path(".cache/kondense/zoo"))
    parser.add_argument("--output", type=Path, default=Path("build/zoo"))
    arguments = parser.parse_args()
    operations = [name for name in arguments.operations.split(",") if name]
    if unknown := set(operations) - set(functions):
        raise SystemExit(f"--operations must be of {', '.join(functions)}, but got {', '.join(sorted(unknown))}.")
    networks = chosen([text for text in arguments.networks.split(",") if text])
    folder = arguments.cache / arguments.revision
    _warm_up()

    def cell(network: str, operation: str) -> Cell:
        path = folder / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', network)}--{operation}.json"
        if arguments.again and path.exists() and json.loads(path.read_text())["result"] != "ok":
            path.unlink()
        made = cached(lambda: run_cell(network, operation, functions[operation], cpu_s=arguments.cpu_seconds), path)
        print(f"{made.result:8} {network} {operation} {made.cpu_s:.1f} s {made.text[:100]}", flush=True)
        return made

    pairs = [(network, operation) for operation in operations for network in networks]
    # Threads only wait: every cell is a process forked from this one, which computes nothing itself.
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        cells = list(pool.map(lambda pair: cell(*pair), pairs))
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "zoo.json").write_text(json.dumps([dataclasses.asdict(each) for each in cells], indent=1))
    lines = tables(cells, operations, GROUPS)
    (arguments.output / "zoo.md").write_text("\n".join([*lines, ""]))
    print("\n".join(lines))


def _warm_up() -> None:
    """Import what the cells need, once, before they are forked."""
    import timm  # noqa: F401
    import torch
    from kondense.export.onnx import warm_up
    from torchvision import models  # noqa: F401

    torch.set_num_threads(1)
    warm_up()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
