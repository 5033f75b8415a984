"""One panel per model: confusion, classes, layers, times, arithmetic of the export. Stdlib only."""

from kondense.artifacts.measurements import Program, Runtimes
from kondense.artifacts.report import Candidate, Report, models
from kondense.report import confusion
from kondense.report.figures import size
from kondense.report.layer_table import layer_table
from kondense.report.lineage_view import pairs
from kondense.report.markup import Markup, element
from kondense.report.timing_table import timing_table


def details(report: Report) -> list[Markup]:
    """Return tabs with a panel for each model; the chosen model's is selected."""
    shown = models(report)
    tabs = [
        element(
            "button",
            model["name"],
            type="button",
            role="tab",
            id=f"tab-{index}",
            aria_controls=f"panel-{index}",
            aria_selected="true" if model["name"] == report["chosen"] else "false",
        )
        for index, model in enumerate(shown)
    ]
    panels = [_panel(report, model, index) for index, model in enumerate(shown)]
    return [element("div", tabs, role="tablist", aria_label="Candidate", class_="tabs"), *panels]


def _panel(report: Report, model: Candidate, index: int) -> Markup:
    return element(
        "div",
        element("h3", model["name"], class_="panel-title"),
        element("p", " → ".join(["train", *model["steps"]]), class_="route"),
        element(
            "div",
            element("div", confusion.matrix(model)),
            element("div", confusion.per_class(report, model), confusion.confused_pairs(model, report["teacher"])),
            class_="two",
        ),
        layer_table(model),
        timing_table(model),
        _export(model),
        role="tabpanel",
        id=f"panel-{index}",
        aria_labelledby=f"tab-{index}",
    )


def _export(model: Candidate) -> Markup | None:
    """Return the arithmetic of the exported model, its operators, and its further exports."""
    arithmetic = model.get("arithmetic")
    if not arithmetic:
        return None
    kernels = ", ".join(f"{count} {name}" for name, count in model.get("kernels", {}).items())
    program = model.get("program")
    facts = {
        "arithmetic": f"{arithmetic['chosen']}: {arithmetic['reason']}",
        "operators that onnxruntime runs": kernels or "–",
        "served by": _served(model.get("runtimes")),
        "torch.export program": "not requested" if not program else _program(program),
    }
    return element("div", pairs(facts), class_="export")


def _served(runtimes: Runtimes | None) -> str:
    if not runtimes:
        return "–"
    wrong = f"; wrong in {runtimes['faulty']}" if runtimes["faulty"] else ""
    checked = [version.removeprefix("onnxruntime ") for version in runtimes["checked"]]
    return f"{runtimes['least']} or later (checked: {', '.join(checked)}){wrong}"


def _program(program: Program) -> str:
    if program["lossless"]:
        return f"program.pt2, {size(program['bytes'])}, identical logits in a fresh process"
    return f"not kept: logits differ by up to {program['largest_difference']:.2g}"
