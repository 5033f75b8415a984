"""The times of one candidate on every backend, with intervals. Stdlib only."""

from collections.abc import Callable

from kondense.artifacts.measurements import Timing
from kondense.artifacts.report import Candidate
from kondense.report.figures import milliseconds, times
from kondense.report.markup import Child, Markup, element, scrolling_table

HEADINGS = ("Runtime", "Device", "Threads", "Batch", "Median, ms", "p95", "Teacher, ms", "Faster", "Runs")
RUNTIME = {"onnxruntime": "onnxruntime", "torch": "PyTorch"}


def timing_table(model: Candidate) -> Markup | None:
    """Return the table; None if an older evaluation holds no such times."""
    rows = model.get("timings")
    if not rows:
        return None
    caption = "Times of one batch, in turns with the teacher's; in brackets 95 % intervals of the median and the ratio."
    if any(quantized(row, model) for row in rows):
        caption += " PyTorch simulates integers in float."
    head = element("tr", [_heading(text, index) for index, text in enumerate(HEADINGS)])
    return scrolling_table(caption, head, map(_row, rows), kind="timings", label=f"Times of {model['name']}")


def quantized(row: Timing, model: Candidate) -> bool:
    """Return whether ``row`` is a PyTorch simulation of integers."""
    return row["runtime"] == "torch" and model.get("arithmetic", {}).get("chosen") == "integer"


def _heading(text: str, index: int) -> Markup:
    return element("th", text, scope="col", class_="n" if index > 1 else None)


def _row(row: Timing) -> Markup:
    times_ms, teacher, ratio = row["candidate"], row["teacher"], row["ratio"]
    unsettled = None
    if not row["settled"]:
        unsettled = element("span", "unsettled", class_="tag", title="times still drifted when the warm-up ended")
    return element(
        "tr",
        element("th", RUNTIME.get(row["runtime"], row["runtime"]), unsettled, scope="row"),
        element("td", row["device"]),
        element("td", row["threads"] or "–", class_="n"),
        element("td", row["batch"], class_="n"),
        element("td", _ranged(times_ms["median"], times_ms.get("low"), times_ms.get("high"), milliseconds), class_="n"),
        element("td", milliseconds(times_ms["p95"]), class_="n"),
        element("td", milliseconds(teacher["median"]) if teacher else "–", class_="n"),
        element("td", _ranged(ratio["value"], ratio["low"], ratio["high"], times) if ratio else "–", class_="n"),
        element("td", times_ms.get("runs", "–"), class_="n muted"),
    )


def _ranged(value: float, low: float | None, high: float | None, written: Callable[[float], str]) -> Child:
    if low is None or high is None:
        return written(value)
    return [written(value), " ", element("span", f"({written(low)}–{written(high)})", class_="muted")]
