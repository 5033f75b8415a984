"""Confusion matrices and changes by class: tables, or pictures for many classes. Stdlib only.

Legend: K classes; confusion counts are [K][K], rows true.
"""

import base64
import struct
import zlib
from collections.abc import Sequence

from kondense.artifacts.report import Candidate, Report, models
from kondense.report.figures import points, signed_points
from kondense.report.markup import Markup, element, scrolling_table

MOST_CELLS = 30  # classes; a larger matrix is drawn as a picture
MOST_CLASSES = 30  # rows of the table of changes
PAIRS = 6
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)  # right and wrong; distinct for all kinds of colour vision


def matrix(model: Candidate) -> Markup:
    """Return the confusion matrix of one model, rows true, columns predicted."""
    counts, classes = model["confusion"], model["dataset"]["classes"]
    caption = "Confusion on the test split: rows are true classes, columns predicted ones"
    if len(classes) > MOST_CELLS:
        return element(
            "figure",
            element("figcaption", caption, class_="caption"),
            element("img", src=_heat_map(counts), class_="heat", alt=f"Confusion matrix of {model['name']}"),
        )
    peak = max([counts[row][column] for row in range(len(counts)) for column in range(len(counts)) if row != column])
    head = element("tr", element("td"), [element("th", element("span", name), scope="col") for name in classes])
    rows = [
        element("tr", element("th", name, scope="row"), [_cell(row, index, column, peak) for column in range(len(row))])
        for index, (name, row) in enumerate(zip(classes, counts, strict=True))
    ]
    return scrolling_table(caption, head, rows, kind="confusion", label=f"Confusion matrix of {model['name']}")


def confused_pairs(model: Candidate, teacher: Candidate) -> Markup:
    """Return the pairs of classes that the model confuses most, with the teacher's counts."""
    counts, classes = model["confusion"], model["dataset"]["classes"]
    pairs = [(counts[i][j], i, j) for i in range(len(counts)) for j in range(len(counts)) if i != j and counts[i][j]]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    is_teacher = model["name"] == teacher["name"]
    rows = [
        element(
            "tr",
            element("td", element("b", classes[i]), " taken for ", element("b", classes[j])),
            element("td", count, class_="n"),
            None if is_teacher else element("td", teacher["confusion"][i][j], class_="n muted"),
        )
        for count, i, j in pairs[:PAIRS]
    ]
    head = element(
        "tr",
        element("th", "Most confused", scope="col"),
        element("th", "Images", scope="col", class_="n"),
        None if is_teacher else element("th", "Teacher", scope="col", class_="n"),
    )
    return element("table", element("thead", head), element("tbody", rows), class_="pairs")


def changes(report: Report) -> Markup:
    """Return the table of classes by candidates: test accuracy against the teacher's, in points."""
    candidates, teacher = report["candidates"], report["teacher"]
    classes = report["dataset"]["classes"]
    largest = {
        index: max([abs(model["difference"]["per_class_accuracy"][index]) for model in candidates], default=0.0)
        for index in range(len(classes))
    }
    shown = sorted(sorted(largest, key=lambda index: -largest[index])[:MOST_CLASSES])
    peak = max([largest[index] for index in shown] + [0.01])
    head = element(
        "tr",
        element("th", "Class", scope="col"),
        element("th", teacher["name"], scope="col", class_="n"),
        [element("th", _breakable(model["name"]), scope="col", class_="n") for model in candidates],
    )
    rows = [
        element(
            "tr",
            element("th", classes[index], scope="row"),
            element("td", f"{100 * teacher['per_class_accuracy'][index]:.1f} %", class_="n muted"),
            [_change(model["difference"]["per_class_accuracy"][index], peak) for model in candidates],
        )
        for index in shown
    ]
    which = "" if len(shown) == len(classes) else f"; the {len(shown)} of {len(classes)} classes that change most"
    caption = f"Change of each class's test accuracy against the teacher, in points{which}"
    width = f"min-width:{208 + 84 * len(candidates)}px"
    return scrolling_table(caption, head, rows, kind="changes", label=caption, style=width)


def per_class(report: Report, model: Candidate) -> Markup:
    """Return the accuracy of one model by class, with a bar for the change against the teacher."""
    is_teacher = model["name"] == report["teacher"]["name"]
    sizes = [abs(change) for other in models(report) for change in other["difference"]["per_class_accuracy"]]
    peak = max([*sizes, 0.01])
    ranked = sorted(zip(model["dataset"]["classes"], _class_rows(model), strict=True), key=lambda row: row[1][1])
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", points(accuracy), class_="n"),
            None
            if is_teacher
            else [element("td", signed_points(change), class_="n"), element("td", _bar(change, peak))],
        )
        for name, (accuracy, change) in ranked[:MOST_CLASSES]
    ]
    head = element(
        "tr",
        element("th", "Class", scope="col"),
        element("th", "Test, %", scope="col", class_="n"),
        None if is_teacher else element("th", "Against the teacher", scope="colgroup", colspan=2),
    )
    return element("table", element("thead", head), element("tbody", rows), class_="classes")


def _class_rows(model: Candidate) -> list[tuple[float, float]]:
    return list(zip(model["per_class_accuracy"], model["difference"]["per_class_accuracy"], strict=True))


def _bar(change: float, peak: float) -> Markup:
    width = 50 * abs(change) / peak
    side = "right" if change < 0 else "left"
    style = f"{side}:50%;width:{width:.1f}%"
    kind = "worse" if change < 0 else "better"
    return element("span", element("span", style=style, class_=kind), class_="bar", aria_hidden="true")


def _cell(row: Sequence[int], index: int, column: int, peak: int) -> Markup:
    count = row[column]
    if not count:
        return element("td", "·", class_="zero")
    # The diagonal holds hundreds and the rest a few, so their scales differ.
    share = count / max(sum(row), 1) if index == column else (count / max(peak, 1)) ** 0.7
    kind = "right" if index == column else "wrong"
    deep = " deep" if share > 0.55 else ""
    return element("td", count, class_=f"{kind}{deep}", style=f"--v:{share:.2f}")


def _change(change: float, peak: float) -> Markup:
    share = min(abs(change) / peak, 1.0)
    kind = "wrong" if change < 0 else "right"
    deep = " deep" if share > 0.55 else ""
    return element("td", signed_points(change), class_=f"n {kind}{deep}", style=f"--v:{share:.2f}")


def _breakable(name: str) -> list[Markup | str]:
    parts: list[Markup | str] = []
    for part in name.split("-"):
        parts += [part, "-", Markup("<wbr>")]
    return parts[:-2]


def _heat_map(counts: Sequence[Sequence[int]]) -> str:
    """Return a PNG as a data URL: one pixel per pair of classes, its opacity the fraction of the row."""
    lines = []
    for index, row in enumerate(counts):
        total = max(sum(row), 1)
        pixels = bytearray(b"\0")
        for column, count in enumerate(row):
            share = count / total if index == column else min(4 * count / total, 1.0) ** 0.7
            pixels += bytes((*(BLUE if index == column else ORANGE), round(255 * share)))
        lines.append(bytes(pixels))
    header = struct.pack(">IIBBBBB", len(counts), len(counts), 8, 6, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"".join(lines), 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
