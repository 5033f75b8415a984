"""`python -m benchmarks.compression`: how much is lost for how much that is gained, beside the peers.

    python -m benchmarks.compression --seeds 3 --output build/compression
    python -m benchmarks.compression --parts sparsity,channels --networks lenet5

Ours and the peers start from the same teachers and train the same number of epochs. Every finished entry is kept
in OUTPUT/rows.jsonl, so that the command goes on where it was stopped; tables.md and a picture per part are written
at the end. The profile `cores` fits two CPU cores, `sample` takes a fifth of the images, `full` wants a GPU.
"""

import argparse
import functools
import json
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from kondense.measuring.environment import describe_environment

from benchmarks.compression.parts import PARTS
from benchmarks.compression.picture import draw
from benchmarks.compression.setting import PROFILES, Entry, prepare
from benchmarks.compression.table import tables


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--profile", default="cores", choices=tuple(PROFILES))
    parser.add_argument("--networks", default="", help="only these; all when empty")
    parser.add_argument(
        "--methods", default="", help="only this method, or entries whose method or case contains this text"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of every entry, seeds 0, 1, ...")
    parser.add_argument("--cache", type=Path, default=Path(".cache/kondense/benchmarks"), help="data set and teachers")
    parser.add_argument("--output", type=Path, default=Path("build/compression"))
    arguments = parser.parse_args()
    parts = _choose(arguments.parts, PARTS)
    networks = _choose(arguments.networks, PROFILES[arguments.profile].teacher_epochs) if arguments.networks else None
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "environment.json").write_text(json.dumps(describe_environment(), indent=1))
    journal = arguments.output / "rows.jsonl"
    for seed in range(arguments.seeds):
        for part in parts:
            for entry in PARTS[part].ENTRIES:
                if _wanted(entry, PARTS[part].ENTRIES, arguments.methods) and (
                    networks is None or entry.network in networks
                ):
                    _measure(journal, arguments, part, entry, seed)
    rows = [row for row in _read(journal) if row["part"] in parts and row["seed"] < arguments.seeds]
    lines = tables(rows)
    print("\n".join(lines))
    (arguments.output / "tables.md").write_text("\n".join([*lines, ""]))
    for part in dict.fromkeys(row["part"] for row in rows):
        chosen = [row for row in rows if row["part"] == part]
        getattr(PARTS[part], "draw", functools.partial(draw, part))(chosen, arguments.output)


def _wanted(entry: Entry, entries: Sequence[Entry], text: str) -> bool:
    """Tell whether ``text`` is the entry's method, or, where it is nobody's, part of its method or case."""
    if any(text == each.method for each in entries):
        return text == entry.method
    return text in entry.method or text in entry.case


def _measure(journal: Path, arguments: argparse.Namespace, part: str, entry: Entry, seed: int) -> None:
    key = {"part": part, "network": entry.network, "case": entry.case, "method": entry.method, "seed": seed}
    if any(all(row[name] == value for name, value in key.items()) for row in _read(journal)):
        return
    setting = prepare(arguments.cache, arguments.profile, entry.network, seed)
    started = time.monotonic()
    try:
        figures = entry.run(setting)
    finally:
        shutil.rmtree(setting.directory)
    row: Mapping[str, Any] = key | {"figures": figures, "seconds": round(time.monotonic() - started, 1)}
    with journal.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def _read(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def _choose(text: str, known: Collection[str]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise SystemExit(f"unknown name {name!r}; there are {', '.join(known)}.")
    return names


if __name__ == "__main__":
    main()
