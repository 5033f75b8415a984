"""The Pareto pictures: test accuracy against a cost, one mark per model, as inline SVG. Stdlib only."""

from collections.abc import Callable, Sequence

from kondense.artifacts.report import Candidate, Report, models
from kondense.report.axes import Axis, cost_axis
from kondense.report.figures import milliseconds, points, round_value, signed_points, size, times
from kondense.report.label_layout import Place, Point, Segment, place_labels
from kondense.report.markup import Markup, element

WIDTH, HEIGHT = 540, 400
LEFT, RIGHT, TOP, BOTTOM = 46, 526, 30, 354  # the plot's frame
RADIUS = 5.5
LETTER, LINE, BOLD = 7.4, 16.0, 1.15  # of a label, generous because the reader's font is unknown
# A candidate this many times farther below the best than those before it is drawn at the lower edge, so that one
# broken candidate does not compress the scale of the others.
WIDE_GAP, LEAST_SPAN = 3.0, 0.02


def against_bytes(report: Report) -> Markup:
    """Return the picture of test accuracy against the size of weights.kz."""
    return _picture(report, "bytes", "Size of weights.kz", lambda model: model["bytes"]["kz"], _round_size)


def against_latency(report: Report) -> Markup:
    """Return the picture of test accuracy against the median latency at batch 1, as a fraction of the teacher's."""
    unit = milliseconds(report["teacher"]["latency_ms"]["batch_1"]["median"])
    title = f"Median latency at batch 1, teacher = 1 ({unit} ms)"
    return _picture(report, "latency", title, lambda model: 1 / model["difference"]["latency_ratio"], round_value)


def describe(model: Candidate) -> str:
    """Return the tooltip of a model's mark, line by line, the name first."""
    difference, latency = model["difference"], model["latency_ms"]["batch_1"]["median"]
    return "\n".join(
        [
            model["name"],
            f"{points(model['test_accuracy'])} % test accuracy ({signed_points(difference['test_accuracy'])})",
            f"{size(model['bytes']['kz'])}, {times(difference['bytes_ratio'])} smaller than the teacher in fp32",
            f"{milliseconds(latency)} ms, {times(difference['latency_ratio'])} the teacher's speed",
            "within the bound" if model["within_bound"] else "outside the bound on validation accuracy",
        ]
    )


def _round_size(value: float) -> str:
    number, unit = size(round(value)).split()
    return f"{round_value(float(number))} {unit}"


def _picture(
    report: Report, front: str, title: str, cost: Callable[[Candidate], float], written: Callable[[float], str]
) -> Markup:
    shown = models(report)
    horizontal = cost_axis([cost(model) for model in shown], LEFT, RIGHT)
    vertical = _accuracy_axis([model["test_accuracy"] for model in shown])
    marks = [(horizontal.position(cost(model)), vertical.position(model["test_accuracy"])) for model in shown]
    on_front = sorted(mark for mark, model in zip(marks, shown, strict=True) if front in model["pareto"])
    stairs = _stairs(on_front)
    texts = [_label(model, vertical) for model in shown]
    wanted = [
        Point(x, y, RADIUS + 1.5, _width(report, model, text), LINE)
        for (x, y), model, text in zip(marks, shown, texts, strict=True)
    ]
    priorities = [_priority(report, model, front) for model in shown]
    places = place_labels(wanted, (LEFT + 2, TOP, RIGHT, BOTTOM - 2), stairs, priorities)
    scale = "logarithmic" if horizontal.logarithmic else "linear"
    return element(
        "svg",
        element("text", "Test accuracy, %", x=4, y=14, class_="axis-title"),
        element("text", f"{title} ({scale})", x=RIGHT, y=HEIGHT - 6, class_="axis-title end"),
        _grid(horizontal, vertical, written),
        _front(on_front, stairs),
        _teacher_line(vertical.position(report["teacher"]["test_accuracy"])),
        [_leader(mark, place) for mark, place in zip(marks, places, strict=True) if place and place.far],
        [
            _mark(report, model, mark, front, clipped=model["test_accuracy"] < vertical.low)
            for model, mark in zip(shown, marks, strict=True)
        ],
        [
            _text(report, model, text, place, mark)
            for model, text, place, mark in zip(shown, texts, places, marks, strict=True)
            if place
        ],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="scatter",
        role="group",
        aria_label=f"Test accuracy against {title}, one mark per candidate",
    )


def _accuracy_axis(accuracies: Sequence[float]) -> Axis:
    """Return an axis that shows at least the better half, and the models below that no wide gap separates."""
    ranked = sorted(accuracies, reverse=True)
    best, worst = ranked[0], ranked[(len(ranked) - 1) // 2]
    for accuracy in ranked:
        if best - accuracy > max(LEAST_SPAN, WIDE_GAP * (best - worst)):
            break
        worst = min(worst, accuracy)
    room = max(0.12 * (best - worst), 0.0015)
    return Axis(worst - room, min(best + room, 1.0 + room / 2), BOTTOM, TOP)


def _label(model: Candidate, vertical: Axis) -> str:
    if model["test_accuracy"] < vertical.low:
        return f"{model['name']} ({points(model['test_accuracy'])} %)"
    return model["name"]


def _priority(report: Report, model: Candidate, front: str) -> int:
    if model["name"] in (report["chosen"], report["teacher"]["name"]):
        return 2
    return int(front in model["pareto"])


def _width(report: Report, model: Candidate, text: str) -> float:
    return LETTER * len(text) * (BOLD if model["name"] == report["chosen"] else 1.0)


def _stairs(front: Sequence[tuple[float, float]]) -> list[Segment]:
    """Return the edge of the attained region, from the lower left to the right of the frame."""
    if not front:
        return []
    stairs: list[Segment] = [(front[0][0], BOTTOM, *front[0])]
    for (x1, y1), (x2, y2) in zip(front, front[1:], strict=False):
        stairs += [(x1, y1, x2, y1), (x2, y1, x2, y2)]
    return [*stairs, (*front[-1], RIGHT, front[-1][1])]


def _grid(horizontal: Axis, vertical: Axis, written: Callable[[float], str]) -> list[Markup]:
    parts = []
    ticks = [tick for tick in vertical.ticks(8) if tick <= 1]
    # As few decimals as tell the ticks exactly.
    exact = (n for n in range(4) if all(abs(100 * tick - round(100 * tick, n)) < 1e-6 for tick in ticks))
    digits = next(exact, 4)
    for tick in ticks:
        y = vertical.position(tick)
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{100 * tick:.{digits}f}", x=LEFT - 8, y=y + 4.2, class_="tick end"))
    for tick in horizontal.ticks():
        x = horizontal.position(tick)
        parts.append(element("line", x1=x, x2=x, y1=BOTTOM, y2=BOTTOM + 5, class_="edge"))
        parts.append(element("text", written(tick), x=x, y=BOTTOM + 20, class_="tick middle"))
    parts.append(element("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, class_="edge"))
    return parts


def _front(front: Sequence[tuple[float, float]], stairs: Sequence[Segment]) -> list[Markup]:
    if not stairs:
        return []
    line = f"M{stairs[0][0]:.1f} {stairs[0][1]:.1f}" + "".join(f"L{x:.1f} {y:.1f}" for _, _, x, y in stairs)
    return [
        element("path", d=f"{line}L{RIGHT} {BOTTOM}Z", class_="attained"),
        element("path", d=line, class_="front"),
    ]


def _teacher_line(y: float) -> Markup:
    return element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="reference")


def _leader(mark: tuple[float, float], place: Place) -> Markup:
    left, top, right, bottom = place.rectangle
    x, y = min(max(mark[0], left), right), min(max(mark[1], top), bottom)
    return element("line", x1=mark[0], y1=mark[1], x2=x, y2=y, class_="leader")


def _mark(report: Report, model: Candidate, mark: tuple[float, float], front: str, *, clipped: bool) -> Markup:
    x, y = mark
    if clipped:
        shape = element("path", d=f"M{x - 6:.1f} {y - 9:.1f}h12l-6 9z")
    elif model["name"] == report["teacher"]["name"]:
        shape = element("rect", x=x - 4.8, y=y - 4.8, width=9.6, height=9.6, transform=f"rotate(45 {x:.1f} {y:.1f})")
    else:
        shape = element("circle", cx=x, cy=y, r=RADIUS)
    chosen = model["name"] == report["chosen"]
    return element(
        "g",
        element("circle", cx=x, cy=y, r=RADIUS + 4.5, class_="ring") if chosen else None,
        shape,
        class_=" ".join(["mark", *_standing(report, model), "on-front" if front in model["pareto"] else "dominated"]),
        tabindex=0,
        role="img",
        aria_label=describe(model).replace("\n", "; "),
        data_tip=describe(model),
        data_model=model["name"],
    )


def _text(report: Report, model: Candidate, text: str, place: Place, mark: tuple[float, float]) -> Markup:
    left, top, right, bottom = place.rectangle
    # Anchored at the side that faces the point, the text is close to it with every font.
    if left > mark[0]:
        x, anchor = left, ""
    elif right < mark[0]:
        x, anchor = right, "end"
    else:
        x, anchor = (left + right) / 2, "middle"
    classes = " ".join(["label", anchor, *_standing(report, model)])
    return element("text", text, x=x, y=(top + bottom) / 2 + 4.4, class_=classes, aria_hidden="true")


def _standing(report: Report, model: Candidate) -> list[str]:
    return [
        "chosen" if model["name"] == report["chosen"] else "",
        "teacher" if model["name"] == report["teacher"]["name"] else "",
        "" if model["within_bound"] else "outside",
    ]
