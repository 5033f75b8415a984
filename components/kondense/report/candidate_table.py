"""The sortable table of candidates: every figure and its difference from the teacher's. Stdlib only."""

import dataclasses
from collections.abc import Callable

from kondense.artifacts.report import Candidate, Report, models
from kondense.report.choice import UNDECIDED, spread_text
from kondense.report.figures import amount, milliseconds, padded, percent, points, signed_points, size, times
from kondense.report.markup import Child, Markup, element, scrolling_table


@dataclasses.dataclass(frozen=True)
class Column:
    """One column: heading, value to sort by, format of the value."""

    heading: str
    value: Callable[[Candidate], float | None]
    written: Callable[[float], Child]
    explanation: str = ""


SPLITS = {"Δ test": "test", "Δ validation": "validation"}  # columns whose differences have an interval


def _bytes(count: float) -> Child:
    return element("span", size(round(count)), title=f"{round(count):,} bytes")


def _amount(count: float) -> Child:
    return element("span", amount(round(count)), title=f"{round(count):,}")


def _corrupted(model: Candidate) -> float | None:
    robustness = model.get("robustness")
    return robustness["mean"] if robustness else None


WORST_CLASS = "Δ worst class"
BESIDE = "the teacher's median, timed in turns with this candidate / this median"
LAST_RATIO = Column("faster", lambda m: m["difference"]["latency_ratio_batch_64"], times, BESIDE)
GROUPS: tuple[tuple[str, tuple[Column, ...]], ...] = (
    (
        "Accuracy, %",
        (
            Column("Test", lambda m: m["test_accuracy"], points, "on the test split, PyTorch model"),
            Column("Δ test", lambda m: m["difference"]["test_accuracy"], signed_points, "difference in points"),
            Column(
                "Δ validation",
                lambda m: m["difference"]["validation_accuracy"],
                signed_points,
                "difference on the validation split, on which the bound is checked, in points",
            ),
            Column(
                WORST_CLASS,
                lambda m: m["difference"]["worst_class"]["change"] if "worst_class" in m["difference"] else None,
                signed_points,
                "change of the class that lost most, in points",
            ),
        ),
    ),
    (
        "Bytes",
        (
            Column("kz", lambda m: m["bytes"]["kz"], _bytes, "weights.kz, the entropy-coded form"),
            Column("smaller", lambda m: m["difference"]["bytes_ratio"], times, "teacher in fp32 / this weights.kz"),
            Column("stored", lambda m: m["bytes"]["stored"], _bytes, "weights.safetensors"),
            Column("fp32", lambda m: m["bytes"]["fp32"], _bytes, "every weight as a 32-bit float"),
            Column("ONNX", lambda m: m["bytes"]["onnx"], _bytes, "model.onnx, the exported graph"),
            Column("bits/weight", lambda m: m.get("bits_per_weight"), padded, "bits of weights.kz per parameter"),
        ),
    ),
    (
        "Latency, batch 1, ms",
        (
            Column(
                "median", lambda m: m["latency_ms"]["batch_1"]["median"], milliseconds, "exported model, one thread"
            ),
            Column("p95", lambda m: m["latency_ms"]["batch_1"]["p95"], milliseconds, "95th percentile"),
            Column("faster", lambda m: m["difference"]["latency_ratio"], times, BESIDE),
        ),
    ),
    (
        "Latency, batch 64, ms",
        (
            Column(
                "median", lambda m: m["latency_ms"]["batch_64"]["median"], milliseconds, "exported model, one thread"
            ),
            Column("p95", lambda m: m["latency_ms"]["batch_64"]["p95"], milliseconds, "95th percentile"),
            LAST_RATIO,
        ),
    ),
    (
        "Exported model, %",
        (
            Column("test", lambda m: m["onnx_test_accuracy"], points, "test accuracy in onnxruntime"),
            Column("agrees", lambda m: m["onnx_agreement"], percent, "same class predicted as by the PyTorch model"),
        ),
    ),
    (
        "Network",
        (
            Column("MACs", lambda m: m["macs"], _amount, "multiply-accumulates for one image"),
            Column("fewer", lambda m: m["difference"]["macs_ratio"], times, "teacher's MACs / these"),
            Column("parameters", lambda m: m["parameters"], _amount),
            Column("non-zero", lambda m: m["nonzero_parameters"], _amount, "parameters that are not zero"),
        ),
    ),
    (
        "Further",
        (
            Column("like teacher", lambda m: m["teacher_agreement"], percent, "same class predicted as by the teacher"),
            Column("corrupted", _corrupted, points, "mean test accuracy under noise, blur and low contrast, %"),
            Column("images/s", lambda m: m["throughput_images_per_s"], _amount, "throughput of the exported model"),
            Column("peak memory", lambda m: m["peak_memory_bytes"], _bytes, "of the process that ran the model"),
            Column("score", lambda m: m["score"], times, "the objective's ratio, by which the choice ranks"),
        ),
    ),
)


def candidate_table(report: Report) -> Markup:
    """Return the table of the teacher and all candidates."""
    caption = "Candidates with their differences from the teacher. Press a heading to sort."
    columns = [column for _, group in GROUPS for column in group]
    starts = _group_starts()
    head = [
        element(
            "tr",
            element("td"),
            [element("th", title, scope="colgroup", colspan=len(group), class_="group") for title, group in GROUPS],
        ),
        element(
            "tr",
            _heading("Candidate", "", first=True),
            [
                _heading(column.heading, column.explanation, first=index in starts)
                for index, column in enumerate(columns)
            ],
        ),
    ]
    rows = [_row(report, model, columns, starts) for model in models(report)]
    return scrolling_table(caption, head, rows, kind="candidates", label="Table of candidates")


def _group_starts() -> set[int]:
    starts, position = set(), 0
    for _, group in GROUPS:
        starts.add(position)
        position += len(group)
    return starts


def _heading(text: str, explanation: str, *, first: bool) -> Markup:
    button = element("button", text, type="button", title=explanation or None)
    return element("th", button, scope="col", aria_sort="none", class_="first" if first else None)


def _row(report: Report, model: Candidate, columns: list[Column], starts: set[int]) -> Markup:
    name = model["name"]
    kind = "chosen" if name == report["chosen"] else "outside" if not model["within_bound"] else None
    return element(
        "tr",
        element("th", element("span", name, class_="name"), " ", _tags(report, model), scope="row", data_value=name),
        [_cell(model, column, first=index in starts) for index, column in enumerate(columns)],
        class_=kind,
        data_model=name,
    )


def _tags(report: Report, model: Candidate) -> list[Markup]:
    tags = []
    if model["name"] == report["chosen"]:
        tags.append(element("span", "chosen", class_="tag chosen"))
    if not model["within_bound"]:
        tags.append(element("span", "outside bound", class_="tag"))
    elif model.get("bound") == UNDECIDED:
        tags.append(element("span", "bound undecided", class_="tag"))
    return tags


def _cell(model: Candidate, column: Column, *, first: bool) -> Markup:
    value = column.value(model)
    kind = "n first" if first else "n"
    if value is None:
        return element("td", "–", class_=f"{kind} muted", data_value="")
    return element("td", column.written(value), class_=kind, title=_hint(model, column), data_value=f"{value:.9g}")


def _hint(model: Candidate, column: Column) -> str | None:
    """Return the tooltip of a cell: name of the worst class, interval of a difference or of a ratio."""
    if column.heading == WORST_CLASS:
        return model["difference"]["worst_class"]["name"]
    if column.heading in SPLITS:
        return spread_text(model["difference"], SPLITS[column.heading], before="points, paired over images: ") or None
    ratios = model.get("latency_ratio")
    if column.explanation == BESIDE and ratios:
        ratio = ratios["batch_64" if column is LAST_RATIO else "batch_1"]
        return f"95 % interval {times(ratio['low'])} to {times(ratio['high'])}"
    return None
