"""Axes of the report's pictures: positions of values and ticks. Stdlib only."""

import dataclasses
import math
from collections.abc import Sequence

STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Axis:
    """Maps values in [low, high] to positions from ``start`` to ``end``, linearly or logarithmically."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def position(self, value: float) -> float:
        """Return the position of ``value``, clipped to the axis."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Return at most ``most`` round values on the axis, at least two if the span allows it."""
        return _log_ticks(self.low, self.high, most) if self.logarithmic else _linear_ticks(self.low, self.high, most)


def cost_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Return an axis for positive values with margins, logarithmic if they span a factor of four."""
    low, high = min(values), max(values)
    if high / low >= 4:
        room = (high / low) ** 0.08
        return Axis(low / room, high * room, start, end, logarithmic=True)
    room = max(high - low, 0.2 * high) * 0.15
    return Axis(max(low - room, 0.0), high + room, start, end)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * step for step in STEPS if power * step >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks: list[float] = []
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        values = [mantissa * 10.0**power for power in powers for mantissa in mantissas]
        ticks = [value for value in values if low <= value <= high]
        if len(ticks) <= most:
            return ticks if len(ticks) > 1 else _linear_ticks(low, high, 4)
    return ticks[:: math.ceil(len(ticks) / most)]
