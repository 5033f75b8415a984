"""Pictures of searches by methods: sensitivity by layer, lottery tickets, greedy search. Stdlib only.

The data are the ``details`` of lineage records; a run without such methods has none.
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
    """Return one part per step that scanned or searched; steps shared by candidates appear once."""
    parts = []
    for names, record in _records(report):
        details = record.get("details", {})
        for key, draw in DRAWN.items():
            if details.get(key):
                parts.append(_part(record, names, draw(details[key])))
    return parts


def _records(report: Report) -> Iterator[tuple[list[str], LineageRecord]]:
    distinct: dict[str, tuple[list[str], LineageRecord]] = {}
    for model in models(report):
        for record in model["lineage"]:
            names, _ = distinct.setdefault(json.dumps(record, sort_keys=True), ([], record))
            names.append(model["name"])
    yield from distinct.values()


def _part(record: LineageRecord, names: list[str], figures: list[Markup]) -> Markup:
    title = element(
        "h3", record["summary"], " ", element("span", ", ".join(names), class_="muted"), class_="part-title"
    )
    return element("div", title, element("div", figures, class_="curves"))


def _sensitivity(content: Mapping[str, Any]) -> list[Markup]:
    """Return a picture per layer: validation accuracy against sparsity or bits of this layer alone."""
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
    """Return the picture of winning tickets and of the same masks on other initial weights."""
    ranked = sorted(content, key=lambda ticket: ticket["sparsity"])
    lines = []
    for name, kind in (("ticket", "accuracy"), ("control", "other")):
        path = [(float(row["sparsity"]), float(row[name])) for row in ranked if row.get(name) is not None]
        tips = [f"{name}\n{percent(x)} sparse\n{points(y)} % validation" for x, y in path]
        if path:
            lines.append(Line(name, path, tips, kind))
    sparsities = [x for line in lines for x, _ in line.points]
    picture = line_chart(
        lines,
        title="Validation accuracy, %",
        horizontal=across(min(sparsities), max(sparsities)),
        ticks=_spread([(x, f"{100 * x:.3g}") for x in sorted(set(sparsities))]),
        below="sparsity, %; control: the same masks from new weights",
        vertical=accuracy_axis([y for line in lines for _, y in line.points]),
    )
    return [element("figure", element("figcaption", element("b", "Lottery tickets")), picture)]


def _trajectory(content: list[Mapping[str, Any]]) -> list[Markup]:
    """Return the pictures of a greedy search: accuracy against multiply-accumulates and measured latency."""
    costs: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("macs", "multiply-accumulates", lambda value: amount(round(value))),
        ("latency_ms", "measured latency, ms", milliseconds),
    )
    figures = []
    for key, below, written in costs:
        steps = [step for step in content if step.get(key)]
        if len({step[key] for step in steps}) < 2:
            continue
        path = [(float(step[key]), float(step["validation_accuracy"])) for step in steps]
        tips = [
            f"step {number}: {step.get('layer', '')}\n{step.get('channels', '')} channels\n"
            f"{points(step['validation_accuracy'])} % validation, {written(step[key])}"
            for number, step in enumerate(steps, start=1)
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
    """Return at most ``most`` ticks, both ends included, that are at least a fourteenth of the axis apart."""
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
