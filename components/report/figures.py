"""How figures are written, the same in the reason, the page and its pictures. Stdlib only."""

MINUS = "−"


def significant(value: float, digits: int = 3) -> str:
    """Return ``value`` with so many significant digits, thousands separated: ``1,720``, ``25.7``, ``0.0312``."""
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    if "e" in text or abs(value) >= 10**digits:
        text = f"{round(float(text)):,}" if abs(value) >= 1 else f"{value:.2g}"
    return text.replace("-", MINUS)


def padded(value: float) -> str:
    """Return ``value`` with three significant digits, trailing zeros kept: ``0.0310``, ``2.50``, ``118``."""
    text = f"{value:#.3g}".rstrip(".")
    return f"{value:,.0f}" if "e" in text and abs(value) >= 1 else text


def points(fraction: float) -> str:
    """Return a fraction in percent or percentage points, two decimals: ``90.65``."""
    return f"{100 * fraction:.2f}"


def signed_points(fraction: float) -> str:
    """Return a difference of fractions in percentage points with its sign: ``+0.12``, ``−0.19``, ``0.00``."""
    text = f"{100 * fraction:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", MINUS)


def size(count: int) -> str:
    """Return a number of bytes in decimal units: ``812 B``, ``25.7 kB``, ``1.72 MB``."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{significant(value)} {unit}"


def amount(count: int) -> str:
    """Return a count in short form: ``812``, ``19.8k``, ``2.29M``."""
    value, unit = float(count), ""
    for larger in ("k", "M", "G", "T"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{significant(value)}{unit}"


def times(ratio: float) -> str:
    """Return a ratio with its sign: ``67.1×``, ``1.08×``."""
    return f"{padded(ratio)}×"


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with one decimal: ``94.9 %``; ``100 %`` only when it is all."""
    text = f"{100 * fraction:.1f}"
    if text == "100.0":
        return "100 %" if fraction >= 1 else "> 99.9 %"
    return f"{text} %"
