"""Temperature and alpha over a run, as functions of its progress, the fraction of the horizon that is behind."""

import math
from collections.abc import Callable, Mapping

# Maps progress, [0, 1], to the fraction of the way from the first value to the last.
COURSES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda progress: 0.0,
    "linear": lambda progress: progress,
    "cosine": lambda progress: 0.5 * (1.0 - math.cos(math.pi * progress)),
}


def value_at(course: str, first: float, last: float, progress: float) -> float:
    """Return the value on the way from ``first`` to ``last``; a constant one stays at ``first``."""
    return first + (last - first) * COURSES[course](min(max(progress, 0.0), 1.0))
