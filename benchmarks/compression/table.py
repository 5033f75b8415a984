"""The benchmark's tables: mean and standard deviation over the seeds, by part, network and case."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]  # part, network, case, method, seed, figures {name: number}


def tables(rows: Sequence[Row]) -> list[str]:
    """Return the lines of one Markdown table per part."""
    lines: list[str] = []
    for part in dict.fromkeys(row["part"] for row in rows):
        chosen = [row for row in rows if row["part"] == part]
        names = list(dict.fromkeys(name for row in chosen for name in row["figures"]))
        lines += ["", f"### {part}", "", f"| network | case | method | {' | '.join(names)} | seeds |"]
        lines += ["|" + "---|" * (len(names) + 4)]
        for network, case, method in dict.fromkeys((row["network"], row["case"], row["method"]) for row in chosen):
            same = [row for row in chosen if (row["network"], row["case"], row["method"]) == (network, case, method)]
            cells = [cell(row["figures"][name] for row in same if name in row["figures"]) for name in names]
            lines.append(f"| {network} | {case} | {method} | {' | '.join(cells)} | {len(same)} |")
    return lines


def cell(numbers: Iterable[float]) -> str:
    """Return ``mean +- standard deviation``; the mean alone where there is one number, nothing where none is."""
    found = list(numbers)
    if not found:
        return ""
    mean = statistics.fmean(found)
    digits = 0 if abs(mean) >= 1000 else 2
    text = f"{mean:,.{digits}f}"
    return f"{text} +- {statistics.stdev(found):,.{digits}f}" if len(found) > 1 else text
