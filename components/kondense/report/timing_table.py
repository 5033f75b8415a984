"""One candidate's times in every way that it was run, with intervals. Stdlib only."""

from kondense.artifacts.measurements import Timing
from kondense.artifacts.report import Candidate
from kondense.report.figures import milliseconds, times
from kondense.report.markup import Child, Markup, element

HEADINGS = ("Runtime", "Device", "Threads", "Batch", "Median, ms", "p95", "Teacher, ms", "Faster", "Runs")
RUNTIME = {"onnxruntime": "onnxruntime", "torch": "PyTorch"}


def timing_table(model: Candidate) -> Markup | None:
    """Return the table, in a box that scrolls by itself; None where an older evaluation holds no such times."""
    rows = model.get("timings")
    if not rows:
        return None
    caption = "Times of one batch, in turns with the teacher's; in brackets 95 % intervals of the median and the ratio."
    if any(quantized(row, model) for row in rows):
        caption += " PyTorch simulates integers in float."
    table = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", [_heading(text, index) for index, text in enumerate(HEADINGS)])),
        element("tbody", [_row(row) for row in rows]),
        class_="timings",
    )
    label = f"Times of {model['name']}"
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)


def quantized(row: Timing, model: Candidate) -> bool:
    """Tell whether ``row`` is of integers that PyTorch simulates."""
    return row["runtime"] == "torch" and model.get("arithmetic", {}).get("chosen") == "integer"


def _heading(text: str, index: int) -> Markup:
    return element("th", text, scope="col", class_="n" if index > 1 else None)


def _row(row: Timing) -> Markup:
    own, teacher, ratio = row["candidate"], row["teacher"], row["ratio"]
    unsettled = None
    if not row["settled"]:
        unsettled = element("span", "unsettled", class_="tag", title="times still drifted when the warm-up ended")
    return element(
        "tr",
        element("th", RUNTIME.get(row["runtime"], row["runtime"]), unsettled, scope="row"),
        element("td", row["device"]),
        element("td", row["threads"] or "–", class_="n"),
        element("td", row["batch"], class_="n"),
        element("td", _ranged(milliseconds(own["median"]), own.get("low"), own.get("high"), milliseconds), class_="n"),
        element("td", milliseconds(own["p95"]), class_="n"),
        element("td", milliseconds(teacher["median"]) if teacher else "–", class_="n"),
        element("td", _ranged(times(ratio["value"]), ratio["low"], ratio["high"], times) if ratio else "–", class_="n"),
        element("td", own.get("runs", "–"), class_="n muted"),
    )


def _ranged(value: str, low: float | None, high: float | None, written: object) -> Child:
    if low is None or high is None or not callable(written):
        return value
    return [value, " ", element("span", f"({written(low)}–{written(high)})", class_="muted")]
