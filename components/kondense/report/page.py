"""report.html: one self-contained page for a sandboxed frame without a network.

All content is inline, text is escaped (``markup``), and a policy in the page forbids loading anything. Without scripts
the page shows all parts one below the other.
"""

import re
from pathlib import Path

from kondense.artifacts.report import Candidate, Environment, Report, models
from kondense.errors import InputError
from kondense.files import ArtifactError
from kondense.report import confusion, scatter, training_curves
from kondense.report.candidate_table import candidate_table
from kondense.report.choice import FORMULAS
from kondense.report.details import details
from kondense.report.figures import amount, milliseconds, points, signed_points, size, times
from kondense.report.lineage_view import lineage_view, pairs
from kondense.report.markup import Child, Markup, element, scrolling_table
from kondense.report.method_pictures import method_pictures
from kondense.report.robustness_view import robustness_view

UNIT = re.compile(r"(?<=\d) (?=(?:[kMGT]?B|%|ms|points)(?!\w))")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
SECTIONS = (
    ("trade-offs", "Trade-offs"),
    ("candidates", "Candidates"),
    ("classes", "Classes"),
    ("robustness", "Robustness"),
    ("details", "Details"),
    ("methods", "Methods"),
    ("training", "Training"),
    ("lineage", "Lineage"),
    ("environment", "Environment"),
)


def render(report: Report) -> str:
    """Return the whole page for a checked report.

    Raises:
        ArtifactError: a part that only the page reads, such as a method's own details, does not have its form.
    """
    try:
        return _rendered(report)
    except InputError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ArtifactError(f"the report {report['title'][:80]!r} cannot be shown as a page: {reason}.") from error


def _rendered(report: Report) -> str:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"{report['title']}: {report['chosen']}"),
        element("style", _asset("page.css")),
    )
    body = element(
        "body",
        _header(report),
        element("main", _headline(report), _sections(report)),
        element("footer", f"Kondense report, format {report['format_version']}. The same figures: report.json."),
        element("div", id="tip", role="presentation", hidden=True),
        element("script", _asset("page.js")),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _asset(name: str) -> Markup:
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))


def _header(report: Report) -> Markup:
    links = [element("a", title, href=f"#{name}") for name, title in SECTIONS]
    return element("header", element("h1", report["title"]), element("nav", links, aria_label="Sections"))


def _headline(report: Report) -> Markup:
    chosen = next(model for model in models(report) if model["name"] == report["chosen"])
    compressed = chosen["name"] != report["teacher"]["name"]
    return element(
        "section",
        element("p", "Chosen candidate" if compressed else "No candidate chosen: keep", class_="eyebrow"),
        element("h2", chosen["name"], id="chosen"),
        element("p", _route(chosen, compressed=compressed), class_="route"),
        element("p", _kept_together(report["reason"]), class_="reason"),
        element("dl", _tiles(report, chosen), class_="tiles"),
        _failed(report),
        _notes(report),
        class_="headline" if compressed else "headline kept",
        aria_labelledby="chosen",
    )


def _route(chosen: Candidate, *, compressed: bool) -> Child:
    if not compressed or not chosen["steps"]:
        return "the teacher, unchanged"
    return " → ".join(chosen["steps"])


def _tiles(report: Report, chosen: Candidate) -> list[Markup]:
    latency = chosen["latency_ms"]["batch_1"]
    against = _kept(chosen) if chosen["name"] == report["teacher"]["name"] else _compared(report["teacher"], chosen)
    values = (
        ("Test accuracy", f"{points(chosen['test_accuracy'])} %"),
        ("Size", size(chosen["bytes"]["kz"])),
        ("Latency, batch 1", f"{milliseconds(latency['median'])} ms"),
        ("Non-zero parameters", amount(chosen["nonzero_parameters"])),
    )
    return [_tile(label, value, text) for (label, value), text in zip(values, against, strict=True)]


def _kept(teacher: Candidate) -> tuple[str, str, str, str]:
    return (
        f"validation {points(teacher['validation_accuracy'])} %",
        f"as weights.kz; {size(teacher['bytes']['fp32'])} in fp32",
        f"95th percentile {milliseconds(teacher['latency_ms']['batch_1']['p95'])} ms",
        f"of {amount(teacher['parameters'])}",
    )


def _compared(teacher: Candidate, chosen: Candidate) -> tuple[str, str, str, str]:
    difference = chosen["difference"]
    latency = chosen.get("teacher_latency_ms", teacher["latency_ms"])["batch_1"]["median"]
    fewer = teacher["nonzero_parameters"] / max(chosen["nonzero_parameters"], 1)
    return (
        f"{signed_points(difference['test_accuracy'])} points against the teacher's"
        f" {points(teacher['test_accuracy'])} %",
        f"{times(difference['bytes_ratio'])} smaller than the teacher in fp32, {size(teacher['bytes']['fp32'])}",
        f"{times(difference['latency_ratio'])} the teacher's speed, {milliseconds(latency)} ms in turns with it",
        f"{times(fewer)} fewer than the teacher's {amount(teacher['nonzero_parameters'])}",
    )


def _tile(label: str, value: str, against: str) -> Markup:
    return element(
        "div",
        element("dt", label),
        element("dd", value, class_="value"),
        element("dd", _kept_together(against), class_="against"),
    )


def _kept_together(text: str) -> str:
    """Join numbers and their units by no-break spaces."""
    return UNIT.sub("\u00a0", text)


def _failed(report: Report) -> Markup | None:
    failed = report.get("failed")
    if not failed:
        return None
    caption = "These candidates could not be made or measured; the same command tries their failed steps again."
    head = [element("tr", [element("th", text, scope="col") for text in ("Failed candidate", "step", "reason")])]
    rows = [
        element(
            "tr", element("th", each["name"], scope="row"), element("td", each["step"]), element("td", each["reason"])
        )
        for each in failed
    ]
    return scrolling_table(caption, head, rows, kind="failed", label="Candidates that failed")


def _notes(report: Report) -> Markup | None:
    if not report["notes"]:
        return None
    return element("ul", [element("li", note) for note in report["notes"]], class_="notes", aria_label="Notes")


def _sections(report: Report) -> list[Markup]:
    contents = (
        _trade_offs,
        _candidates,
        _classes,
        robustness_view,
        details,
        _methods,
        _training,
        _lineage,
        _environment,
    )
    return [
        element("section", element("h2", title), content(report), id=name, aria_label=title)
        for (name, title), content in zip(SECTIONS, contents, strict=True)
    ]


def _trade_offs(report: Report) -> list[Markup]:
    outside = any(not model["within_bound"] for model in report["candidates"])
    key = [
        _key("chosen", "chosen"),
        _key("teacher", "teacher"),
        _key("on-front", "on the Pareto front"),
        _key("dominated", "dominated: another is at least as good in both"),
        _key("outside", "outside the bound on validation accuracy") if outside else None,
    ]
    figures = [
        element("figure", element("figcaption", caption), picture)
        for caption, picture in (
            ("Accuracy against size on disk", scatter.against_bytes(report)),
            ("Accuracy against latency", scatter.against_latency(report)),
        )
    ]
    return [
        element("p", "Up and to the left is better. The shaded region is attained by some candidate.", class_="lead"),
        element("ul", key, class_="key"),
        element("div", figures, class_="two"),
    ]


def _key(kind: str, text: str) -> Markup:
    ring = element("circle", cx=8, cy=8, r=7, class_="ring") if kind == "chosen" else None
    shape = (
        element("rect", x=3.5, y=3.5, width=9, height=9, transform="rotate(45 8 8)")
        if kind == "teacher"
        else element("circle", cx=8, cy=8, r=3.6 if ring else 4.8)
    )
    mark = element("svg", element("g", ring, shape, class_=f"mark {kind}"), viewBox="0 0 16 16", aria_hidden="true")
    return element("li", mark, text)


def _candidates(report: Report) -> list[Markup]:
    bound = points(report["max_accuracy_drop"])
    text = (
        f"Bound: validation accuracy at most {bound} points below the teacher's. Objective, {report['objective']}:"
        f" {FORMULAS[report['objective']]}."
    )
    return [element("p", text, class_="lead"), candidate_table(report)]


def _classes(report: Report) -> Markup:
    if not report["candidates"]:
        return element("p", "There is no candidate beside the teacher.", class_="lead")
    return confusion.changes(report)


def _methods(report: Report) -> list[Markup]:
    parts = method_pictures(report)
    if parts:
        return parts
    text = (
        "No step of this run scanned layers or searched. prune.sensitivity=true and quantize.sensitivity=true scan; the"
        " methods lottery and greedy search."
    )
    return [element("p", text, class_="lead")]


def _training(report: Report) -> list[Markup]:
    figures = training_curves.pictures(report)
    if not figures:
        return [element("p", "No step of this run trained a network.", class_="lead")]
    text = "Validation accuracy above, training loss below; the dashed line is the teacher's validation accuracy."
    if training_curves.is_clipped(report):
        text += " Values below the accuracy axis are drawn at its lower edge."
    return [element("p", text, class_="lead"), element("div", figures, class_="curves")]


def _lineage(report: Report) -> list[Markup]:
    text = "Each step with its followers; open one for its configuration, digests and versions."
    return [element("p", text, class_="lead"), lineage_view(report)]


def _providers(environment: Environment) -> list[str]:
    return [name.removesuffix("ExecutionProvider") for name in environment.get("providers", [])]


def _environment(report: Report) -> Markup:
    environment = report["environment"]
    return pairs(
        {
            "CPU": environment["cpu"],
            "instruction sets": ", ".join(environment["cpu_flags"]) or "–",
            "cores": environment["cores"],
            "memory": size(environment["memory_bytes"]),
            "GPU": environment["gpu"] or "none",
            "onnxruntime runs on": ", ".join(_providers(environment)) or "–",
            "platform": environment["platform"],
            **environment["versions"],
        }
    )
