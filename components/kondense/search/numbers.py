"""Numbers in the texts that trials report."""

import math
import re

# What Go's ParseFloat accepts. An underscore stands between two digits or behind 0x, a hexadecimal number has an
# exponent, NaN has no sign. No two parts match the same digits, so that the time is linear in the text.
_DIGITS, _HEX = r"\d+(?:_\d+)*", r"[\da-f]+(?:_[\da-f]+)*"
_DECIMAL = rf"(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:e[+-]?{_DIGITS})?"
_HEXADECIMAL = rf"0x(?:_?{_HEX}(?:\.(?:{_HEX})?)?|\.{_HEX})p[+-]?{_DIGITS}"
NUMBER = re.compile(rf"[+-]?(?:(?P<hex>{_HEXADECIMAL})|{_DECIMAL}|inf(?:inity)?)|nan", re.IGNORECASE | re.ASCII)


def parse_float(text: str) -> float | None:
    """Return the number in a reported text as Katib reads it, inf and nan included, or None.

    Source: ParseFloat of Go's strconv; a number too large for 64 bits is none.
    """
    if not (found := NUMBER.fullmatch(text)):
        return None
    try:
        value = float.fromhex(text.replace("_", "")) if found["hex"] else float(text)
    except OverflowError:
        return None
    return None if math.isinf(value) and "inf" not in text.lower() else value


def number(text: str) -> float | None:
    """Return the finite number in a reported text, or None."""
    value = parse_float(text)
    return value if value is not None and math.isfinite(value) else None
