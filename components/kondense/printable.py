"""Texts that others have written, as a terminal and a log may show them. Stdlib only."""

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return a text of a file with its control characters as escapes: a terminal would obey them."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
