"""Number formats of the reason, the page and its pictures. Stdlib only."""

MINUS = "−"


def padded(value: float) -> str:
    """Return a value >= 0 with three significant digits and trailing zeros: ``0.0310``, ``2.50``, ``1,724``."""
    text = f"{value:#.3g}".rstrip(".")
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.1e}" if "e" in text else text


def milliseconds(value: float) -> str:
    """Return a time that aligns in a column: ``0.061``, ``4.91``, ``118``; small ones keep two digits."""
    if 0.00995 <= value < 1:
        return f"{value:.3f}"
    return f"{value:.2g}" if value < 1 else padded(value)


def round_value(value: float) -> str:
    """Return a round value, such as a tick of an axis, in its shortest form: ``0.04``, ``2``, ``1,000``."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.6g}"


def points(fraction: float) -> str:
    """Return a fraction in percent or percentage points, two decimals: ``90.65``."""
    return f"{100 * fraction:.2f}"


def signed_points(fraction: float) -> str:
    """Return a difference of fractions in percentage points with its sign: ``+0.12``, ``−0.19``, ``0.00``."""
    text = f"{100 * fraction:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", MINUS)


def size(count: int) -> str:
    """Return a number of bytes in decimal units: ``812 B``, ``25.7 kB``, ``1.72 MB``."""
    value, unit = _scaled(count, ("", "k", "M", "G", "T"))
    return f"{padded(value) if unit else count} {unit}B"


def amount(count: int) -> str:
    """Return a count in short form: ``812``, ``19.8k``, ``2.29M``."""
    value, unit = _scaled(count, ("", "k", "M", "G", "T"))
    return f"{padded(value)}{unit}" if unit else str(count)


def times(ratio: float) -> str:
    """Return a ratio with its sign: ``0.90×``, ``1.08×``, ``67.1×``, ``151×``; small ones keep three digits."""
    return f"{ratio:.2f}×" if 0.0995 <= ratio < 9.995 else f"{padded(ratio)}×"


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with one decimal: ``94.9 %``; ``100 %`` only for 1."""
    text = f"{100 * fraction:.1f}"
    if text == "100.0":
        return "100 %" if fraction >= 1 else "> 99.9 %"
    return f"{text} %"


def _scaled(count: int, units: tuple[str, ...]) -> tuple[float, str]:
    value = float(count)
    for unit in units:
        if value < 999.5 or unit == units[-1]:
            return value, unit
        value /= 1000
    raise AssertionError("the last unit returns")
