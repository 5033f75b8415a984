"""`python -m benchmarks.search.tables`: train every configuration of the tables and store the learning curves.

    nice python -m benchmarks.search.tables --work .cache/tables
    nice python -m benchmarks.search.tables --tables digits-forest --work .cache/tables --output /tmp/tables

A table is made in parts, which stay in `--work`: the same command goes on where it was stopped. One thread: the
numbers do not depend on the number of cores. `benchmarks/search/tables/*.npz` was made by the first command.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.search.tables.grids import GRIDS, Grid

PARTS = 6  # of a table


def curves_of(name: str) -> Callable[[Grid, np.ndarray], np.ndarray]:
    """Return the function that trains a table's configurations: (grid, numbers [C]) -> losses [C, R]."""
    from benchmarks.search.tables import networks, trees

    return {
        "digits-network": lambda grid, numbers: networks.curves(grid, numbers, networks.digits()),
        "fashion-network": lambda grid, numbers: networks.curves(grid, numbers, networks.fashion()),
        "cancer-boosting": trees.cancer,
        "diabetes-boosting": trees.diabetes,
        "digits-forest": trees.forest,
    }[name]


def make(name: str, work: Path, output: Path) -> None:
    """Train a table's missing parts and store the whole."""
    grid = GRIDS[name]
    parts = np.array_split(np.arange(grid.size), PARTS)
    losses = []
    for number, part in enumerate(parts):
        path = work / f"{name}-{number}.npy"
        if not path.exists():
            start = time.process_time()
            _save(path, partial(np.save, arr=curves_of(name)(grid, part)))
            print(f"{name}: part {number + 1} of {PARTS}, {time.process_time() - start:.0f} s of CPU", flush=True)
        losses.append(np.load(path))
    stored = grid.store(np.concatenate(losses))
    # Neighbouring resources differ little: their differences, modulo 2^16, compress to less.
    steps = np.diff(stored, axis=1, prepend=np.zeros((len(stored), 1), np.uint16))
    _save(output / f"{name}.npz", partial(np.savez_compressed, steps=steps))


def _save(path: Path, write: Callable[..., None]) -> None:
    partial_path = path.with_name(f"partial-{path.name}")
    write(partial_path)
    partial_path.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.tables", description=__doc__.partition("\n")[0])
    parser.add_argument("--tables", default=",".join(GRIDS), help=f"of {', '.join(GRIDS)}")
    parser.add_argument("--work", type=Path, required=True, help="directory of the parts")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="directory of the tables")
    arguments = parser.parse_args()
    names = arguments.tables.split(",")
    for name in names:
        if name not in GRIDS:
            raise SystemExit(f"unknown table {name!r}; there are {', '.join(GRIDS)}.")
    for directory in (arguments.work, arguments.output):
        directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        make(name, arguments.work, arguments.output)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch and scikit-learn are imported
    main()
