"""Accuracy under noise, blur and low contrast before and after compression. Stdlib only."""

from kondense.artifacts.report import Candidate, Report, models
from kondense.report.figures import points, signed_points
from kondense.report.line_chart import Line, accuracy_axis, across, line_chart
from kondense.report.markup import Markup, element, scrolling_table


def robustness_view(report: Report) -> list[Markup]:
    """Return pictures of the chosen model and the teacher, and the table of all; a sentence if none was measured."""
    shown = [model for model in models(report) if model.get("robustness")]
    if not shown:
        return [element("p", "No model of this run was measured on corrupted images.", class_="lead")]
    robustness = shown[0]["robustness"]
    assert robustness is not None
    text = (
        f"Test accuracy on {robustness['images']} images (drawn with seed {robustness['seed']}), clean and corrupted"
        " at three strengths: Gaussian noise (standard deviation as a fraction of the pixels' range), Gaussian blur"
        " (standard deviation as a fraction of the image's side), contrast reduction (fraction)."
    )
    teacher, chosen = report["teacher"], next(m for m in models(report) if m["name"] == report["chosen"])
    drawn = [m for m in ([teacher] if teacher is chosen else [teacher, chosen]) if m.get("robustness")]
    figures = [_figure(kind, drawn, teacher) for kind in robustness["corruptions"]] if drawn else []
    return [element("p", text, class_="lead"), element("div", figures, class_="curves"), _table(report, shown)]


def _figure(kind: str, drawn: list[Candidate], teacher: Candidate) -> Markup:
    lines, accuracies = [], []
    for model in drawn:
        robustness = model["robustness"]
        assert robustness is not None
        corruption = robustness["corruptions"][kind]
        values = [robustness["clean"], *corruption["accuracy"]]
        names = ["clean", *(f"{kind} {strength:g}" for strength in corruption["strengths"])]
        tips = [f"{model['name']}\n{name}\n{points(value)} %" for name, value in zip(names, values, strict=True)]
        name, style = ("teacher", "other") if model is teacher and len(drawn) > 1 else ("chosen", "accuracy")
        lines.append(Line(name, list(enumerate(map(float, values))), tips, style))
        accuracies += values
    ticks = [(0.0, "0"), *((index, f"{strength:g}") for index, strength in enumerate(corruption["strengths"], start=1))]
    picture = line_chart(
        lines,
        title="Test accuracy, %",
        horizontal=across(0, 3),
        ticks=ticks,
        below=f"strength of the {kind}" if kind != "contrast" else "contrast reduction",
        vertical=accuracy_axis(accuracies),
    )
    return element("figure", element("figcaption", element("b", kind.capitalize())), picture)


def _table(report: Report, shown: list[Candidate]) -> Markup:
    first = shown[0]["robustness"]
    assert first is not None
    kinds = first["corruptions"]
    teacher = report["teacher"].get("robustness")
    head = [
        element(
            "tr",
            element("td"),
            element("td"),
            [
                element("th", kind.capitalize(), scope="colgroup", colspan=len(corruption["strengths"]), class_="group")
                for kind, corruption in kinds.items()
            ],
            element("td"),
        ),
        element(
            "tr",
            element("th", "Candidate", scope="col"),
            element("th", "clean", scope="col", class_="n"),
            [
                element("th", f"{strength:g}", scope="col", class_="n")
                for corruption in kinds.values()
                for strength in corruption["strengths"]
            ],
            element("th", "mean", scope="col", class_="n", title="of the corrupted images"),
        ),
    ]
    caption = "Accuracy on corrupted images, %; below it the difference from the teacher's, in percentage points"
    rows = [_row(model, teacher) for model in shown]
    return scrolling_table(caption, head, rows, kind="robustness", label="Accuracy on corrupted images")


def _row(model: Candidate, teacher: object) -> Markup:
    teachers = _values(teacher) if teacher else []
    cells = []
    for index, value in enumerate(_values(model["robustness"])):
        change = value - teachers[index] if teachers else 0.0
        share = min(abs(change) / 0.1, 1.0)  # ten percentage points give the full shade
        kind = "wrong" if change < 0 else "right"
        parts = [points(value), element("small", signed_points(change))] if teachers else [points(value)]
        cells.append(element("td", parts, class_=f"n {kind}", style=f"--v:{share:.2f}"))
    return element("tr", element("th", model["name"], scope="row"), cells)


def _values(robustness: object) -> list[float]:
    assert isinstance(robustness, dict)
    corrupted = [value for corruption in robustness["corruptions"].values() for value in corruption["accuracy"]]
    return [robustness["clean"], *corrupted, robustness["mean"]]
