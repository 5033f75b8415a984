"""The texts of ``layers`` and ``exclude``, parsed. Stdlib only."""


def parse_fractions(text: str) -> dict[str, float]:
    """Read ``Conv2d=0.8,Linear=0.95,fc2=0.5``: fractions removed by operation type or module name.

    Raises:
        ValueError: no ``name=fraction``, a fraction outside [0, 1), or a name given twice.
    """
    fractions: dict[str, float] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, separator, number = (part.strip() for part in entry.partition("="))
        try:
            fraction = float(number)
        except ValueError:
            fraction = -1.0
        if not separator or not name or not 0.0 <= fraction < 1.0:
            raise ValueError(f"layers must be entries name=fraction with a fraction in [0, 1), but got {entry!r}.")
        if name in fractions:
            raise ValueError(f"layers must name each type or module once, but got {name!r} twice.")
        fractions[name] = fraction
    return fractions


def parse_names(text: str) -> tuple[str, ...]:
    """Read a comma-separated list of names."""
    return tuple(filter(None, map(str.strip, text.split(","))))
