"""Numbers in the texts that trials report."""

import math
import re

# Go's ParseFloat accepts neither surrounding blanks nor a hexadecimal number without an exponent. No two parts match
# the same digits, so that the time is linear in the text.
NUMBER = re.compile(r"[+-]?(\d+(_\d+)*(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf(inity)?|nan)", re.IGNORECASE | re.ASCII)


def number(text: str) -> float | None:
    """Return the finite number in a reported text, or None."""
    if not NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
