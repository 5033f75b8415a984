"""HTML and SVG built as escaped text: a string is data until it is made ``Markup``. Stdlib only."""

import html
from collections.abc import Iterable

VOID = frozenset({"meta", "img", "br", "hr"})


class Markup(str):
    """Text that is HTML already; anything else is escaped when it becomes a child of an element."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]


def element(tag: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """Return one element.

    Args:
        tag: its name.
        children: text (escaped), ``Markup`` (kept), or nested iterables of them; None is skipped.
        attributes: ``class_`` gives ``class`` and ``aria_label`` gives ``aria-label``; values are
            escaped; True gives a bare attribute, None and False none.
    """
    opening = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Markup(f"<{tag}{opening}>")
    return Markup(f"<{tag}{opening}>{join(children)}</{tag}>")


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
