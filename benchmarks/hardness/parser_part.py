"""The part `parsers`: mutated inputs against every parser."""

import argparse

from benchmarks.hardness.fuzz import ESCAPES, READ, REFUSED, Counts, fuzz
from benchmarks.hardness.parsers.table import PARSERS


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this part."""
    parser.add_argument("--inputs", type=int, default=200_000, help="mutated inputs over all parsers")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--only", default="", help="names of parsers, joined by commas")


def run(arguments: argparse.Namespace) -> bool:
    """Read the inputs, print the table, and return whether none escaped."""
    only = [name for name in arguments.only.split(",") if name]
    chosen = [each for each in PARSERS if not only or each.name in only]
    whole = sum(each.share for each in chosen)
    counted = []
    for each in chosen:
        counts = fuzz(each, seed=arguments.seed, count=round(arguments.inputs * each.share / whole))
        counted.append(counts)
        print(_row(counts), flush=True)
        for text, example in counts.escapes.items():
            print(f"    {text} ({example})", flush=True)
    print("\n".join(table(counted)))
    return not any(counts.escaped for counts in counted)


def table(counted: list[Counts]) -> list[str]:
    """Return the lines of the table."""
    total = Counts("all")
    for counts in counted:
        total.results += counts.results
        total.slowest_s = max(total.slowest_s, counts.slowest_s)
        total.largest_bytes = max(total.largest_bytes, counts.largest_bytes)
    head = ["parser", "inputs", READ, REFUSED, *ESCAPES, "slowest", "most memory"]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *map(_row, [*counted, total])]


def _row(counts: Counts) -> str:
    numbers = [counts.results.total(), *(counts.results[result] for result in (READ, REFUSED, *ESCAPES))]
    cells = [counts.parser, *(f"{number:,}" for number in numbers)]
    return f"| {' | '.join(cells)} | {counts.slowest_s:.2f} s | {counts.largest_bytes / 2**20:.0f} MiB |"
