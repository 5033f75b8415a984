"""Parsers of the parameters ``layers`` and ``pattern``. Stdlib only."""

import re

from kondense.errors import InputError


def parse_fractions(text: str) -> dict[str, float]:
    """Parse ``Conv2d=0.8,Linear=0.95,fc2=0.5``: fractions to remove by layer type or module name.

    Raises:
        InputError: no ``name=fraction``, a fraction outside [0, 1), or a name given twice.
    """
    fractions: dict[str, float] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, separator, number = (part.strip() for part in entry.partition("="))
        try:
            fraction = float(number)
        except ValueError:
            fraction = -1.0
        if not separator or not name or not 0.0 <= fraction < 1.0:
            raise InputError(f"layers must be entries name=fraction with a fraction in [0, 1), but got {entry!r}.")
        if name in fractions:
            raise InputError(f"layers must name each type or module once, but got {name!r} twice.")
        fractions[name] = fraction
    return fractions


def parse_pattern(text: str) -> tuple[int, int]:
    """Parse ``2:4``: keep 2 of every 4 weights.

    Raises:
        InputError: another form, or numbers that keep nothing or prune nothing.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    keep, size = map(int, match.groups()) if match else (0, 0)
    if not 0 < keep < size:
        raise InputError(f"pattern must be n:m with 0 < n < m, such as 2:4, but got {text!r}.")
    return keep, size
