"""The table of candidates at the end of a run."""

from pathlib import Path
from typing import Any

from kondense.artifacts.report import FORMAT_VERSION
from kondense.files import read_json
from rich import box
from rich.table import Table

from kondense_pipelines.terminal import plain


def candidate_table(report_json: Path) -> tuple[Table, str]:
    """Return the table of a report's models, the teacher first, and the reason for the choice, as markup."""
    report = read_json(report_json, format_version=FORMAT_VERSION)
    table = Table(
        title=plain(report["title"]) or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),  # so that models of many megabytes fit in 100 columns
    )
    for heading in ("", "candidate", "test %", "points", "95 %", "smaller", "bytes", "faster", "ms"):
        table.add_column(heading, justify="left" if heading in ("", "candidate") else "right", no_wrap=True)
    for model in (report["teacher"], *report["candidates"]):
        chosen = model["name"] == report["chosen"]
        table.add_row("➜" if chosen else "", *cells(model), style="bold green" if chosen else "")
    for failed in report.get("failed", ()):
        table.add_row("✗", plain(failed["name"]), "failed", style="red")
    return table, plain(report["reason"])


def cells(model: dict[str, Any]) -> tuple[str, ...]:
    """Return one model's row: name, accuracy, difference in points, ratios to the teacher, size, latency."""
    difference = model["difference"]
    return (
        plain(model["name"]),
        f"{100 * model['test_accuracy']:.2f}",
        f"{100 * difference['test_accuracy']:+.2f}",
        _spread(difference.get("test_interval")),
        f"{difference['bytes_ratio']:.1f}x",
        f"{model['bytes']['kz']:,}",
        f"{difference['latency_ratio']:.2f}x",
        f"{model['latency_ms']['batch_1']['median']:.3f}",
    )


def _spread(interval: dict[str, float] | None) -> str:
    """Return the interval of the difference in points; "" for the teacher and for older reports."""
    return f"{100 * interval['low']:+.1f} {100 * interval['high']:+.1f}" if interval else ""
