"""A small line chart as inline SVG. Stdlib only."""

import dataclasses
from collections.abc import Callable, Sequence

from kondense.report.axes import Axis
from kondense.report.figures import points, round_value
from kondense.report.markup import Child, Markup, element

WIDTH, HEIGHT = 340, 196
LEFT, RIGHT, TOP, BOTTOM = 40, 240, 18, 150
LINE = 13.0  # of a label
LEAST_ROOM = 0.002  # of the accuracy axis


@dataclasses.dataclass(frozen=True)
class Line:
    """One line: name, points (x, accuracy), a tooltip per point, and style.

    ``kind`` is a class of page.css: ``accuracy`` for the subject of the picture, ``other`` for its reference.
    """

    name: str
    points: Sequence[tuple[float, float]]
    tips: Sequence[str]
    kind: str = "accuracy"


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    horizontal: Axis,
    ticks: Sequence[tuple[float, str]],
    below: str,
    vertical: Axis,
    reference: float | None = None,
    written: Callable[[float], str] = points,
) -> Markup:
    """Return the picture.

    Args:
        lines: at least one, with at least one point each.
        title: title of the vertical axis.
        horizontal: the horizontal axis; see ``across``.
        ticks: values of x and their texts.
        below: title of the horizontal axis.
        vertical: the axis of accuracy; see ``accuracy_axis``.
        reference: an accuracy, drawn as a dashed line.
        written: format of the last value of a line.
    """
    y = vertical.position(reference) if reference is not None else None
    ends = _apart([vertical.position(line.points[-1][1]) for line in lines])
    summary = "; ".join(f"{line.name}: {written(line.points[0][1])} to {written(line.points[-1][1])}" for line in lines)
    return element(
        "svg",
        element("text", title, x=0, y=10, class_="axis-title"),
        levels(vertical, 5, lambda value: round_value(100 * value)),
        [element("text", text, x=horizontal.position(x), y=BOTTOM + 16, class_="tick middle") for x, text in ticks],
        element("text", below, x=(LEFT + RIGHT) / 2, y=BOTTOM + 36, class_="axis-title middle"),
        element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="reference") if y is not None else None,
        [_drawn(line, horizontal, vertical) for line in lines],
        [
            _end(line, horizontal.position(line.points[-1][0]), place, written, named=len(lines) > 1)
            for line, place in zip(lines, ends, strict=True)
        ],
        [_hits(line, horizontal, vertical) for line in lines],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="curve",
        role="img",
        aria_label=f"{title} by {below}. {summary}",
    )


def across(low: float, high: float, *, falling: bool = False) -> Axis:
    """Return the horizontal axis of a chart, from ``low`` to ``high``, reversed if ``falling``."""
    start, end = (RIGHT, LEFT) if falling else (LEFT, RIGHT)
    return Axis(low, high if high > low else low + 1, start, end)


def accuracy_axis(accuracies: Sequence[float]) -> Axis:
    """Return the vertical axis of a chart, with margins around the ``accuracies``."""
    low, high = min(accuracies), max(accuracies)
    room = max(0.06 * (high - low), LEAST_ROOM)
    return Axis(low - room, high + room, BOTTOM, TOP)


def levels(axis: Axis, most: int, written: Callable[[float], str], right: float = RIGHT) -> list[Markup]:
    """Return the grid lines of a vertical axis and their labels."""
    parts = []
    for tick in axis.ticks(most):
        y = axis.position(tick)
        parts.append(element("line", x1=LEFT, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", written(tick), x=LEFT - 6, y=y + 3.6, class_="tick end"))
    return parts


def _drawn(line: Line, horizontal: Axis, vertical: Axis) -> list[Markup]:
    places = [(horizontal.position(x), vertical.position(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = [element("circle", cx=x, cy=y, r=2.2, class_=f"dot {line.kind}") for x, y in places]
    return [element("polyline", points=path, class_=f"line {line.kind}"), *dots]


def _end(line: Line, x: float, y: float, written: Callable[[float], str], *, named: bool) -> Child:
    value = written(line.points[-1][1])
    text = f"{value} {line.name}" if named and len(line.name) <= 7 else value
    return element("text", text, x=x + 7, y=y + 4, class_=f"label {line.kind}")


def _hits(line: Line, horizontal: Axis, vertical: Axis) -> list[Markup]:
    return [
        element("circle", cx=horizontal.position(x), cy=vertical.position(y), r=7, class_="hit", data_tip=tip)
        for (x, y), tip in zip(line.points, line.tips, strict=True)
    ]


def _apart(places: Sequence[float]) -> list[float]:
    """Return the heights of labels so that no two cover each other, as near as can be to where they belong."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, after in zip(order, order[1:], strict=False):
        moved[after] = max(moved[after], moved[before] + LINE)
    too_low = max(max(moved) - (BOTTOM - 4), 0.0)  # below that stand the ticks
    return [place - too_low for place in moved]
