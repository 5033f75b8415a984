"""How results show themselves: as text in a terminal, as HTML in a notebook. Stdlib only."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from kondense.printable import printable

Rows = Sequence[Mapping[str, Any]]


def figure(value: Any) -> str:
    """Return a value as people read it: 4 decimals, thousands separated."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def text_table(rows: Rows) -> str:
    """Return rows with equal keys as aligned columns under their names."""
    if not rows:
        return "(nothing)"
    lines = [list(rows[0]), *([printable(figure(value)) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def html_table(rows: Rows, *, title: str = "") -> str:
    """Return rows with equal keys as an HTML table; every text is escaped."""
    heading = f"<p><b>{html.escape(title)}</b></p>" if title else ""
    names = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0]) if rows else ""
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(figure(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f"{heading}<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def metric_rows(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return metrics as rows of a table."""
    return [{"metric": name, "value": value} for name, value in metrics.items()]
