"""Pictures of how methods found what they did: sensitivity by layer, lottery tickets, the greedy way. Stdlib only.

They come from the ``details`` of lineage records; a run without such methods has none.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kondense.artifacts.report import LineageRecord, Report, models
from kondense.report.figures import amount, milliseconds, percent, points
from kondense.report.line_chart import Line, accuracy_axis, across, line_chart
from kondense.report.markup import Markup, element

OF = {"sparsity": "sparsity of this layer alone, %", "bits": "bits per weight of this layer alone"}


def method_pictures(report: Report) -> list[Markup]:
    """Return one part per step that scanned or searched, each step once whichever candidates share it."""
    parts = []
    for names, record in _records(report):
        details = record.get("details", {})
        for key, draw in DRAWN.items():
            if details.get(key):
                parts.append(_part(record, names, draw(details[key])))
    return parts


def _records(report: Report) -> Iterator[tuple[list[str], LineageRecord]]:
    found: dict[str, tuple[list[str], LineageRecord]] = {}
    for model in models(report):
        for record in model["lineage"]:
            names, _ = found.setdefault(json.dumps(record, sort_keys=True), ([], record))
            names.append(model["name"])
    yield from found.values()


def _part(record: LineageRecord, names: list[str], figures: list[Markup]) -> Markup:
    title = element(
        "h3", record["summary"], " ", element("span", ", ".join(names), class_="muted"), class_="part-title"
    )
    return element("div", title, element("div", figures, class_="curves"))


def _sensitivity(content: Mapping[str, Any]) -> list[Markup]:
    """Return a small picture per layer: validation accuracy against what was done to this layer alone."""
    rows, of = content["rows"], content["of"]
    accuracies = [float(value) for row in rows for _, value in row["points"]]
    values = [float(value) for row in rows for value, _ in row["points"]]
    vertical, horizontal = accuracy_axis(accuracies), across(min(values), max(values))
    scale = 100 if of == "sparsity" else 1
    figures = []
    for row in rows:
        path = sorted((float(value), float(accuracy)) for value, accuracy in row["points"])
        tips = [f"{row['layer']}\n{of} {scale * x:g}{' %' * (scale > 1)}\n{points(y)} % validation" for x, y in path]
        picture = line_chart(
            [Line(row["layer"], path, tips)],
            title="Validation accuracy, %",
            horizontal=horizontal,
            ticks=[(x, f"{scale * x:g}") for x, _ in path],
            below=OF[of],
            vertical=vertical,
        )
        figures.append(element("figure", element("figcaption", element("b", row["layer"])), picture))
    return figures


def _tickets(content: list[Mapping[str, Any]]) -> list[Markup]:
    """Return the picture of winning tickets beside the same masks with other weights to start from."""
    ranked = sorted(content, key=lambda each: each["sparsity"])
    lines = []
    for name, kind in (("ticket", "accuracy"), ("control", "other")):
        path = [(float(each["sparsity"]), float(each[name])) for each in ranked if each.get(name) is not None]
        tips = [f"{name}\n{percent(x)} sparse\n{points(y)} % validation" for x, y in path]
        if path:
            lines.append(Line(name, path, tips, kind))
    every = [x for line in lines for x, _ in line.points]
    picture = line_chart(
        lines,
        title="Validation accuracy, %",
        horizontal=across(min(every), max(every)),
        ticks=_spread([(x, f"{100 * x:.3g}") for x in sorted(set(every))]),
        below="sparsity, %; control: the same masks from new weights",
        vertical=accuracy_axis([y for line in lines for _, y in line.points]),
    )
    return [element("figure", element("figcaption", element("b", "Lottery tickets")), picture)]


def _trajectory(content: list[Mapping[str, Any]]) -> list[Markup]:
    """Return the pictures of a greedy search: accuracy over multiply-accumulates, and over measured latency."""
    costs: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("macs", "multiply-accumulates", lambda value: amount(round(value))),
        ("latency_ms", "measured latency, ms", milliseconds),
    )
    figures = []
    for key, below, written in costs:
        steps = [each for each in content if each.get(key)]
        if len({each[key] for each in steps}) < 2:
            continue
        path = [(float(each[key]), float(each["validation_accuracy"])) for each in steps]
        tips = [
            f"step {number}: {each.get('layer', '')}\n{each.get('channels', '')} channels\n"
            f"{points(each['validation_accuracy'])} % validation, {written(each[key])}"
            for number, each in enumerate(steps, start=1)
        ]
        low, high = min(x for x, _ in path), max(x for x, _ in path)
        picture = line_chart(
            [Line("greedy", path, tips)],
            title="Validation accuracy, %",
            horizontal=across(low, high, falling=True),
            ticks=[(low, written(low)), (high, written(high))],
            below=below,
            vertical=accuracy_axis([y for _, y in path]),
        )
        figures.append(element("figure", element("figcaption", element("b", "Greedy search")), picture))
    return figures


def _spread(ticks: list[tuple[float, str]], most: int = 7) -> list[tuple[float, str]]:
    """Return at most ``most`` of the ticks that stand at least a fourteenth of the axis apart, both ends among them."""
    if not ticks:
        return []
    room = (ticks[-1][0] - ticks[0][0]) / (2 * most)
    kept = [ticks[0]]
    for tick in ticks[1:-1]:
        if tick[0] - kept[-1][0] >= room and ticks[-1][0] - tick[0] >= room:
            kept.append(tick)
    return kept + ticks[-1:] if len(ticks) > 1 else kept


DRAWN: Mapping[str, Callable[[Any], list[Markup]]] = {
    "sensitivity": _sensitivity,
    "tickets": _tickets,
    "trajectory": _trajectory,
}
