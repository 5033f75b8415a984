"""What noise, blur and lack of contrast cost before and after compression. Stdlib only."""

from kondense.artifacts.report import Candidate, Report, models
from kondense.report.figures import points, signed_points
from kondense.report.line_chart import Line, accuracy_axis, across, line_chart
from kondense.report.markup import Markup, element


def robustness_view(report: Report) -> list[Markup]:
    """Return pictures of the chosen model beside the teacher, and the table of all; a sentence where none was tried."""
    shown = [model for model in models(report) if model.get("robustness")]
    if not shown:
        return [element("p", "No model of this run was tried on spoiled images.", class_="lead")]
    robustness = shown[0]["robustness"]
    assert robustness is not None
    text = (
        f"Test accuracy on {robustness['images']} images (drawn by seed {robustness['seed']}), as they are and spoiled"
        " at three strengths: Gaussian noise (standard deviation, of the pixels' range), Gaussian blur (standard"
        " deviation, of the image's side), contrast taken away (share)."
    )
    teacher, chosen = report["teacher"], next(m for m in models(report) if m["name"] == report["chosen"])
    drawn = [each for each in ([teacher] if teacher is chosen else [teacher, chosen]) if each.get("robustness")]
    figures = [_figure(kind, drawn, report) for kind in robustness["corruptions"]] if drawn else []
    return [element("p", text, class_="lead"), element("div", figures, class_="curves"), _table(report, shown)]


def _figure(kind: str, drawn: list[Candidate], report: Report) -> Markup:
    lines, accuracies = [], []
    for model in drawn:
        robustness = model["robustness"]
        assert robustness is not None
        found = robustness["corruptions"][kind]
        values = [robustness["clean"], *found["accuracy"]]
        names = ["as they are", *(f"{kind} {strength:g}" for strength in found["strengths"])]
        tips = [f"{model['name']}\n{name}\n{points(value)} %" for name, value in zip(names, values, strict=True)]
        own = model["name"] == report["teacher"]["name"] and len(drawn) > 1
        style = "other" if own else "accuracy"
        lines.append(Line("teacher" if own else "chosen", list(enumerate(map(float, values))), tips, style))
        accuracies += values
    ticks = [(0.0, "0"), *((index, f"{each:g}") for index, each in enumerate(found["strengths"], start=1))]
    picture = line_chart(
        lines,
        title="Test accuracy, %",
        horizontal=across(0, 3),
        ticks=ticks,
        below=f"strength of the {kind}" if kind != "contrast" else "contrast taken away",
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
                element("th", kind.capitalize(), scope="colgroup", colspan=len(found["strengths"]), class_="group")
                for kind, found in kinds.items()
            ],
            element("td"),
        ),
        element(
            "tr",
            element("th", "Candidate", scope="col"),
            element("th", "as they are", scope="col", class_="n"),
            [
                element("th", f"{strength:g}", scope="col", class_="n")
                for found in kinds.values()
                for strength in found["strengths"]
            ],
            element("th", "mean", scope="col", class_="n", title="of the spoiled ones"),
        ),
    ]
    caption = "Accuracy on spoiled images, %; below it the difference to the teacher on the same images, in points"
    return element(
        "div",
        element(
            "table",
            element("caption", element("span", caption)),
            element("thead", head),
            element("tbody", [_row(model, teacher) for model in shown]),
            class_="robustness",
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label="Accuracy on spoiled images",
    )


def _row(model: Candidate, teacher: object) -> Markup:
    own, other = _values(model["robustness"]), _values(teacher) if teacher else []
    cells = []
    for index, value in enumerate(own):
        change = value - other[index] if other else 0.0
        share = min(abs(change) / 0.1, 1.0)  # ten points shade a cell fully
        kind = "wrong" if change < 0 else "right"
        parts = [points(value), element("small", signed_points(change))] if other else [points(value)]
        cells.append(element("td", parts, class_=f"n {kind}", style=f"--v:{share:.2f}"))
    return element("tr", element("th", model["name"], scope="row"), cells)


def _values(robustness: object) -> list[float]:
    assert isinstance(robustness, dict)
    every = [value for found in robustness["corruptions"].values() for value in found["accuracy"]]
    return [robustness["clean"], *every, robustness["mean"]]
