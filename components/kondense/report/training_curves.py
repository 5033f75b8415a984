"""Training curves: one picture per training, accuracy above loss, as inline SVG. Stdlib only."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence

from kondense.artifacts.report import CurvePoint, Report, models
from kondense.report.axes import Axis
from kondense.report.figures import padded, points, round_value
from kondense.report.line_chart import LEFT, levels
from kondense.report.markup import Child, Markup, element

WIDTH, HEIGHT = 340, 236
RIGHT = 294
ACCURACY = (18, 128)  # top and bottom of the upper plot
LOSS = (156, 206)
DEEPEST = 0.15  # of the accuracy axis; lower values are drawn at its lower edge


@dataclasses.dataclass(frozen=True)
class Training:
    """The epochs of one stage, and the models that it contributed to."""

    stage: str
    points: Sequence[CurvePoint]
    names: Sequence[str]


def trainings(report: Report) -> list[Training]:
    """Return every distinct training of the run, in the order of the models."""
    distinct: dict[str, Training] = {}
    for model in models(report):
        for curve in model["curves"]:
            key = json.dumps(curve, sort_keys=True)
            names = [*distinct[key].names, model["name"]] if key in distinct else [model["name"]]
            if curve["points"]:
                distinct[key] = Training(curve["stage"], curve["points"], names)
    return list(distinct.values())


def pictures(report: Report) -> list[Markup]:
    """Return one figure per training, all with the same accuracy axis."""
    runs = trainings(report)
    accuracies = [point["validation_accuracy"] for run in runs for point in run.points]
    if not accuracies:
        return []
    best = max(*accuracies, report["teacher"]["validation_accuracy"])
    worst = max(min(accuracies), best - DEEPEST)
    room = max(0.06 * (best - worst), 0.002)
    vertical = Axis(worst - room, best + room, ACCURACY[1], ACCURACY[0])
    return [_figure(report, run, vertical) for run in runs]


def is_clipped(report: Report) -> bool:
    """Return whether the accuracy of some epoch is below the axis and drawn at its lower edge."""
    accuracies = [point["validation_accuracy"] for run in trainings(report) for point in run.points]
    best = max([*accuracies, report["teacher"]["validation_accuracy"]])
    return any(accuracy < best - DEEPEST for accuracy in accuracies)


def _figure(report: Report, run: Training, vertical: Axis) -> Markup:
    names = ", ".join(run.names[:2]) + (f" and {len(run.names) - 2} more" if len(run.names) > 2 else "")
    first, last = run.points[0], run.points[-1]
    summary = (
        f"{run.stage}: validation accuracy from {points(first['validation_accuracy'])} to"
        f" {points(last['validation_accuracy'])} %, training loss from {padded(first['train_loss'])} to"
        f" {padded(last['train_loss'])}, {len(run.points)} epochs"
    )
    return element(
        "figure",
        element("figcaption", element("b", run.stage), " ", element("span", names, class_="muted")),
        element(
            "svg",
            _plots(report, run.points, vertical),
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            class_="curve",
            role="img",
            aria_label=summary,
        ),
    )


def _plots(report: Report, epochs: Sequence[CurvePoint], vertical: Axis) -> list[Child]:
    numbers = [point["epoch"] for point in epochs]
    low, high = min(numbers), max(numbers)
    horizontal = Axis(low, high if high > low else low + 1, LEFT, RIGHT)
    losses = [point["train_loss"] for point in epochs]
    top = max(*losses, 1e-9)
    loss = Axis(0.0, top * 1.08, LOSS[1], LOSS[0])
    y = vertical.position(report["teacher"]["validation_accuracy"])
    return [
        element("text", "Validation accuracy, %", x=LEFT, y=10, class_="axis-title"),
        element("text", "Training loss", x=LEFT, y=148, class_="axis-title"),
        levels(vertical, 5, lambda value: round_value(100 * value), RIGHT),
        levels(loss, 3, round_value, RIGHT),
        element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="reference"),
        _line(horizontal, vertical, numbers, [point["validation_accuracy"] for point in epochs], "accuracy"),
        _line(horizontal, loss, numbers, losses, "loss"),
        _end(horizontal, vertical, numbers[-1], epochs[-1]["validation_accuracy"], points),
        _end(horizontal, loss, numbers[-1], losses[-1], padded),
        _epochs(horizontal, numbers),
        [_hit(horizontal, vertical, point) for point in epochs],
    ]


def _line(horizontal: Axis, axis: Axis, numbers: Sequence[float], values: Sequence[float], name: str) -> Markup:
    path = " ".join(
        f"{horizontal.position(number):.1f},{axis.position(value):.1f}"
        for number, value in zip(numbers, values, strict=True)
    )
    return element("polyline", points=path, class_=f"line {name}")


def _end(horizontal: Axis, axis: Axis, number: float, value: float, written: Callable[[float], str]) -> list[Markup]:
    x, y = horizontal.position(number), axis.position(value)
    return [
        element("circle", cx=x, cy=y, r=3, class_="end-dot"),
        element("text", written(value), x=x + 7, y=y + 4, class_="label"),
    ]


def _epochs(horizontal: Axis, numbers: Sequence[float]) -> list[Markup]:
    ticks = [tick for tick in horizontal.ticks(5) if math.isclose(tick, round(tick)) and tick <= numbers[-1]]
    return [
        element("text", f"{tick:.0f}", x=horizontal.position(tick), y=LOSS[1] + 15, class_="tick middle")
        for tick in ticks
    ] + [element("text", "epoch", x=RIGHT + 10, y=LOSS[1] + 15, class_="tick")]


def _hit(horizontal: Axis, vertical: Axis, point: CurvePoint) -> Markup:
    tip = "\n".join(
        [
            f"epoch {point['epoch']:g}",
            f"validation accuracy {points(point['validation_accuracy'])} %",
            f"training loss {padded(point['train_loss'])}",
            f"learning rate {point['learning_rate']:.3g}",
            *([f"{padded(point['seconds'])} s"] if "seconds" in point else []),
        ]
    )
    x, y = horizontal.position(point["epoch"]), vertical.position(point["validation_accuracy"])
    return element("circle", cx=x, cy=y, r=7, class_="hit", data_tip=tip)
