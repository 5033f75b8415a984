"""Quantities of Kubernetes, such as ``500m`` and ``1Gi``.

Source: ParseQuantity and CanonicalizeBytes in quantity.go of k8s.io/apimachinery v0.34.
"""

import math
import re
from fractions import Fraction

# At most one of the three suffixes; E alone is exa.
QUANTITY = re.compile(r"([+-]?)(?=\.?\d)0*(\d*)(?:\.(\d*))?(?:([KMGTPE]i)|([numkMGTPE]?)|[eE]([+-]?\d{1,9}))", re.ASCII)
BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
NANO = 10**9  # the smallest unit; less is rounded up
LARGEST = 2**63 - 1
EXACT = 40  # powers of ten beyond this are not looked at


def canonical(text: str) -> str | None:
    """Return a quantity (``0.5Gi``) as Kubernetes writes it (``512Mi``), or None if it is none.

    A unit alone, which Kubernetes takes for 0, is none.
    """
    found = QUANTITY.fullmatch(text)
    if not found:
        return None
    sign, whole, fraction, binary, decimal, exponent = found.groups(default="")
    power = int(exponent) if exponent else 3 * DECIMAL.index(decimal) - 9
    steps = BINARY.index(binary) if binary else 0
    if abs(power) > EXACT or (_keeps_binary if binary else _keeps_decimal)(whole or "0", fraction, steps or power):
        return text
    scale = Fraction(1024) ** steps if binary else Fraction(10) ** power
    nano = math.ceil(Fraction(int(f"{whole}{fraction}" or 0), 10 ** len(fraction)) * scale * NANO)
    sign = sign.strip("+") if nano else ""
    if binary and nano >= 1024 * NANO and nano % NANO == 0:
        return sign + _binary(min(nano // NANO, LARGEST))
    return sign + _decimal(nano, exponent=bool(exponent))


def _binary(number: int) -> str:
    steps = 0
    while number % 1024 == 0:
        number, steps = number // 1024, steps + 1
    return f"{number}{BINARY[steps]}"


def _decimal(nano: int, *, exponent: bool) -> str:
    one = DECIMAL.index("")
    steps = next((n for n in range(len(DECIMAL) - 1, -1, -1) if nano and nano % 1000**n == 0), one)
    suffix = f"e{3 * steps - 9}" if exponent and steps != one else DECIMAL[steps]
    return f"{nano // 1000**steps}{suffix}"


def _keeps_binary(whole: str, fraction: str, steps: int) -> bool:
    """Return whether Kubernetes keeps the text of a number of 1024 ** steps instead of writing it anew."""
    return not fraction and len(whole) + 3 * steps <= 14 and int(whole) % 8 != 0


def _keeps_decimal(whole: str, fraction: str, power: int) -> bool:
    """Return the same for a number of 10 ** power."""
    digits, scale = whole + fraction, power - len(fraction)
    short = len(digits) <= 18 and scale >= -9
    return short and scale % 3 == 0 and not digits.endswith("000") and digits[0] != "0"
