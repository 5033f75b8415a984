"""Build HTML and SVG: every string is escaped unless it is ``Markup``. Stdlib only."""

import html
from collections.abc import Iterable

VOID = frozenset({"meta", "img", "br", "hr"})


class Markup(str):
    """Text that is HTML already; other strings are escaped as children of an element."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]


def element(tag: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """Return one element.

    Args:
        tag: name of the element.
        children: text (escaped), ``Markup`` (kept), or nested iterables of them; None is skipped.
        attributes: ``class_`` gives ``class`` and ``aria_label`` gives ``aria-label``; values are
            escaped; True gives an attribute without value, None and False give none.
    """
    opening = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Markup(f"<{tag}{opening}>")
    return Markup(f"<{tag}{opening}>{join(children)}</{tag}>")


def scrolling_table(
    caption: str,
    head: Child,
    rows: Child,
    *,
    kind: str,
    label: str,
    foot: Child = None,
    tall: bool = False,
    style: str | None = None,
) -> Markup:
    """Return a table with a caption in a box that scrolls; ``kind`` is its class, ``label`` is for screen readers."""
    table = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", head),
        element("tbody", rows),
        element("tfoot", foot) if foot else None,
        class_=kind,
        style=style,
    )
    box = "scroll tall" if tall else "scroll"
    return element("div", table, class_=box, tabindex=0, role="region", aria_label=label)


def join(children: Child) -> Markup:
    """Return children one after another, text among them escaped."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, str | int):
        return Markup(html.escape(str(children)))
    return Markup("".join(join(child) for child in children))


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{html.escape(text)}"'
