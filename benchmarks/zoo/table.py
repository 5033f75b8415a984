"""The zoo's cells as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.zoo.cells import Cell

MARKS = {"ok": "+", "refused": "r", "fault": "F"}


def tables(cells: Sequence[Cell], operations: Sequence[str], groups: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the lines of one table per group, the totals, and the reasons of what did not work."""
    by_name = {(cell.network, cell.operation): cell for cell in cells}
    lines = []
    for group, networks in groups.items():
        rows = [network for network in networks if any((network, each) in by_name for each in operations)]
        if rows:
            lines += [f"**{group}**", "", f"| network | {' | '.join(operations)} |", f"|---|{'---|' * len(operations)}"]
            lines += [_row(network, operations, by_name) for network in rows] + [""]
    lines += [*totals(cells), "", *reasons(cells)]
    return lines


def _row(network: str, operations: Sequence[str], by_name: Mapping[tuple[str, str], Cell]) -> str:
    marks = [MARKS[by_name[network, each].result] if (network, each) in by_name else "" for each in operations]
    return f"| {network.partition(':')[2] or network} | {' | '.join(marks)} |"


def totals(cells: Sequence[Cell]) -> list[str]:
    """Return the shares of what works, is refused and is at fault."""
    counts, total = Counter(cell.result for cell in cells), max(len(cells), 1)
    shares = ", ".join(f"{name} {counts[name]} ({100 * counts[name] / total:.1f} %)" for name in MARKS)
    return [f"{len(cells)} cells: {shares}."]


def reasons(cells: Sequence[Cell]) -> list[str]:
    """Return one line per cell that did not work."""
    wrong = [cell for cell in cells if cell.result != "ok"]
    return [f"- {cell.result}: {cell.network} {cell.operation}: {cell.text[:240]} [{cell.where}]" for cell in wrong]
