"""One candidate's layers: shape, bits, sparsity, parameters and MACs. Stdlib only."""

from typing import Literal

from kondense.artifacts.report import Candidate, Layer
from kondense.report.figures import amount, percent
from kondense.report.markup import Child, Markup, element, scrolling_table

HEADINGS = (("Layer", ""), ("Type", ""), ("Shape", ""), ("Bits", "n"), ("Sparsity", "n"), ("Non-zero", "n"))
COUNTS = (("Parameters", "n"), ("MACs", "n"))


def layer_table(model: Candidate) -> Markup:
    """Return the table of ``model``'s layers."""
    caption = "Layers: shape, bits per weight, sparsity, parameters and MACs for one image"
    head = element("tr", [element("th", text, scope="col", class_=kind or None) for text, kind in HEADINGS + COUNTS])
    rows = [_row(layer) for layer in model["layers"]]
    total = element(
        "tr",
        element("th", "All layers", scope="row", colspan=4),
        _sparsity(1 - sum(layer["nonzero"] for layer in model["layers"]) / max(_sum(model, "parameters"), 1)),
        [_count(_sum(model, key)) for key in ("nonzero", "parameters", "macs")],
    )
    label = f"Layers of {model['name']}"
    return scrolling_table(caption, head, rows, kind="layers", label=label, foot=total, tall=True)


def _row(layer: Layer) -> Markup:
    return element(
        "tr",
        element("th", layer["name"], _float_tag(layer), scope="row", class_="code"),
        element("td", layer["type"]),
        element("td", " × ".join(str(length) for length in layer["shape"]), class_="shape"),
        element("td", _bits(layer["bits"]), class_="n", title=layer.get("float_reason")),
        _sparsity(layer["sparsity"]),
        [_count(layer[key]) for key in ("nonzero", "parameters", "macs")],
    )


def _float_tag(layer: Layer) -> Markup | None:
    reason = layer.get("float_reason")
    return element("span", "stays in float", class_="tag", title=reason) if reason else None


def _sum(model: Candidate, key: Literal["nonzero", "parameters", "macs"]) -> int:
    return sum(layer[key] for layer in model["layers"])


def _bits(bits: float) -> Child:
    return element("span", "32", class_="muted") if bits == 32 else element("b", f"{bits:g}")


def _sparsity(share: float) -> Markup:
    bar = element("span", element("span", style=f"width:{100 * share:.1f}%"), class_="meter", aria_hidden="true")
    return element("td", bar, element("span", percent(share)), class_="n sparsity")


def _count(count: int) -> Markup:
    return element("td", amount(count), class_="n", title=f"{count:,}")
