"""One hyperparameter: its values as Katib's strings and as coordinates in [0, 1]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError

Kind = Literal["double", "int", "discrete", "categorical"]
Distribution = Literal["uniform", "logUniform", "normal", "logNormal"]

KINDS = ("double", "int", "discrete", "categorical")
DISTRIBUTIONS = ("uniform", "logUniform", "normal", "logNormal")

EXACT = 2**53  # up to here every integer is a double
FINE = 2**50  # with more values than this, rounding in floating point can move a coordinate to the next value
DIGITS = 10  # of a double's string: enough for any search, few enough to survive the conversion to [0, 1] and back
SIGMAS = 3.0  # distance of a normal distribution's min and max from its mean in standard deviations, as in Katib
STANDARD_NORMAL = NormalDist()


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter as specified in an Experiment.

    Args:
        name: unique within its space.
        kind: `discrete` is a list of numbers (ordered), `categorical` a list of words (unordered).
        low: smallest value of a double or int.
        high: largest value of a double or int.
        step: distance between neighbouring values; None: a continuous double, or 1 for an int.
        distribution: of a double or int: uniform or normal (mean in the middle, range of six standard deviations,
            truncated to the range), on a linear or logarithmic axis.
        values: the strings of a discrete or categorical parameter.

    Raises:
        ValueError: a rule is broken; the message gives the parameter, the rule and the value.
    """

    name: str
    kind: Kind
    low: float | None = None
    high: float | None = None
    step: float | None = None
    distribution: Distribution = "uniform"
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("a parameter's name must not be empty.")
        if self.kind not in KINDS:
            raise self.error(f"parameterType must be one of {', '.join(KINDS)}, but got {self.kind!r}")
        if self.distribution not in DISTRIBUTIONS:
            raise self.error(f"distribution must be one of {', '.join(DISTRIBUTIONS)}, but got {self.distribution!r}")
        if self.kind in ("discrete", "categorical"):
            self._check_values()
        else:
            self._check_range()

    def error(self, text: str) -> InputError:
        """Return an error that names this parameter."""
        return InputError(f"parameter {self.name!r}: {text}.")

    def _check_values(self) -> None:
        if not self.values:
            raise self.error(f"a {self.kind} parameter needs a non-empty list")
        if self.low is not None or self.high is not None or self.step is not None:
            raise self.error(f"a {self.kind} parameter needs a list, not min, max or step")
        seen: set[str | float] = set()
        for value in self.values:
            key = self.number(value) if self.kind == "discrete" else value
            if key in seen:
                raise self.error(f"the list must not repeat a value, but {value!r} occurs twice")
            seen.add(key)

    def _check_range(self) -> None:
        if self.values:
            raise self.error(f"a {self.kind} parameter needs min and max, not a list")
        if self.low is None or self.high is None:
            raise self.error(f"a {self.kind} parameter needs min and max, but got min={self.low}, max={self.high}")
        for label, value in (("min", self.low), ("max", self.high), ("step", self.step)):
            if value is not None:
                self._check_number(label, value)
        if self.low > self.high:
            raise self.error(f"min must not be above max, but got min={self.low:g}, max={self.high:g}")
        if not math.isfinite(self.high - self.low):
            raise self.error(f"max - min must be finite, but got min={self.low:g}, max={self.high:g}")
        if self.step is not None and self.step <= 0:
            raise self.error(f"step must be above 0, but got {self.step:g}")
        if self.step is not None and (self.high - self.low) / self.step >= EXACT:
            raise self.error(f"min, max and step must allow at most 2^53 values, but step is {self.step:g}")
        if self.logarithmic and self.low <= 0:
            raise self.error(f"min must be above 0 with distribution {self.distribution}, but got {self.low:g}")

    def _check_number(self, label: str, value: float) -> None:
        if not math.isfinite(value):
            raise self.error(f"{label} must be finite, but got {value}")
        if self.kind == "int" and value != int(value):
            raise self.error(f"{label} of an int parameter must be an integer, but got {value}")
        if self.kind == "int" and abs(value) > EXACT:
            shown = value if isinstance(value, int) else f"{value:g}"
            raise self.error(f"{label} of an int parameter must lie within -2^53 and 2^53, but got {shown}")

    @property
    def logarithmic(self) -> bool:
        """Whether the axis is logarithmic."""
        return self.distribution in ("logUniform", "logNormal")

    @property
    def ordered(self) -> bool:
        """Whether neighbouring coordinates mean similar values."""
        return self.kind != "categorical"

    @cached_property
    def _ascending(self) -> tuple[str, ...]:
        return self.values if self.kind == "categorical" else tuple(sorted(self.values, key=float))

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {text: index for index, text in enumerate(self._ascending)}

    @cached_property
    def levels(self) -> int | None:
        """The number of different values; None for a continuous parameter."""
        if self.values:
            return len(self.values)
        if self.step is None and self.kind == "double":
            return None if self.low != self.high else 1
        low, high = _exact(self.low), _exact(self.high)
        return int((high - low) // self._spacing) + 1

    @cached_property
    def _spacing(self) -> Decimal:
        return _exact(1.0 if self.step is None else self.step)

    def number(self, text: str) -> float:
        """Return the number in `text`.

        Raises:
            ValueError: it is not a finite number.
        """
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(f"a value must be a finite number, but got {text!r}")
        return value

    def contains(self, text: str) -> bool:
        """Return whether a text is a value of the list, or a number between min and max."""
        if self.values:
            return text in self._positions
        assert self.low is not None and self.high is not None, "a range has two ends"
        try:
            number = self.number(text)
        except InputError:
            return False
        return self.low <= (Decimal(text) if self.kind == "int" else number) <= self.high

    def level(self, index: int) -> str:
        """Return the string of value number `index` in rising order (in the list's order for a categorical)."""
        if self.values:
            return self._ascending[index]
        exact = _exact(self.low) + index * self._spacing
        if self.kind == "int":
            return str(int(exact))
        text = repr(float(exact))
        # Where neighbours are nearer than doubles, the decimal number itself tells them apart.
        return text if abs(Decimal(text) - exact) < self._spacing / 8 else f"{exact:f}"

    def to_unit(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the coordinates of values given as strings, [N] in [0, 1].

        A value of a list, step or int is mapped to the middle of its cell. `from_unit` returns the same string for
        every string that it produced.

        Raises:
            ValueError: a string is not a value of this parameter.
        """
        if self.values:
            try:
                index = np.array([self._positions[text] for text in texts], dtype=np.float64)
            except KeyError as error:
                raise self.error(f"must be one of {', '.join(self.values)}, but got {error.args[0]!r}") from None
            return self._centre(index)
        try:
            numbers = np.array([float(text) for text in texts], dtype=np.float64)
        except ValueError:
            numbers = np.array([math.nan])
        if not np.isfinite(numbers).all():
            numbers = np.array([self.number(text) for text in texts], dtype=np.float64)  # the error names the wrong one
        if self.levels is None:
            return self._cumulative(self._warp(numbers))
        if self._fine:
            return self._centre(np.array([self._level_of(text) for text in texts], dtype=np.float64))
        return self._centre(self._nearest(numbers))

    def from_unit(self, unit: NDArray[np.float64]) -> list[str]:
        """Return the values at coordinates `unit` [N] in [0, 1], as Katib's strings."""
        if self.levels is None:
            return [repr(value) for value in self._tidy(self._unwarp(self._quantile(unit)))]
        return [self.level(int(index)) for index in self._index(unit)]

    def snap(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the middle of the cell of each of the coordinates `unit` [N]."""
        return unit if self.levels is None else self._centre(self._index(unit))

    def _index(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the number of each coordinate's cell."""
        levels = self.levels or 1
        if self.distribution != "uniform":
            return self._coarse(self._nearest(self._unwarp(self._quantile(unit))))
        if levels <= FINE:
            return np.clip(np.floor(unit * levels), 0, levels - 1)
        ratios = (min(max(share, 0.0), 1.0).as_integer_ratio() for share in unit.tolist())
        return np.array([min(above * levels // below, levels - 1) for above, below in ratios], dtype=np.float64)

    def _coarse(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Keep DIGITS of the numbers of cells (of the values on a logarithmic axis), which survive the conversion."""
        levels = self.levels or 1
        if levels <= 10**DIGITS:
            return index
        size = index + float(self.low or 0) / float(self._spacing) if self.logarithmic else np.full_like(index, levels)
        grain = 10.0 ** np.maximum(np.ceil(np.log10(np.maximum(size, 1.0))) - DIGITS, 0.0)
        return np.clip(np.rint(index / grain) * grain, 0, levels - 1)

    @cached_property
    def _fine(self) -> bool:
        """Whether floating point does not tell neighbouring values apart with certainty."""
        largest = max(abs(float(self.low or 0)), abs(float(self.high or 0)))
        return (self.levels or 1) > FINE or largest > FINE * float(self._spacing)

    def _level_of(self, text: str) -> int:
        """Return the number of the value that is nearest to a text, in exact arithmetic."""
        index = (Fraction(text) - Fraction(_exact(self.low))) / Fraction(self._spacing)
        return min(max(round(index), 0), (self.levels or 1) - 1)

    def _nearest(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        index = np.rint((numbers - float(self.low or 0)) / float(self._spacing))
        return np.clip(index, 0, (self.levels or 1) - 1)

    def _centre(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        levels = self.levels or 1
        if self.distribution == "uniform" and levels <= FINE:
            return np.asarray((index + 0.5) / levels, dtype=np.float64)
        if self.distribution == "uniform":
            return np.array([self._fine_centre(int(each)) for each in index.tolist()], dtype=np.float64)
        return self._cumulative(self._warp(float(self.low or 0) + index * float(self._spacing)))

    def _fine_centre(self, index: int) -> float:
        """Return the double that is nearest to the middle of a cell, of those in the cell."""
        levels = self.levels or 1
        centre = (2 * index + 1) / (2 * levels)  # integers are divided with one rounding
        above, below = centre.as_integer_ratio()
        return centre if above * levels // below == index else math.nextafter(centre, 0.0)

    @cached_property
    def _edges(self) -> tuple[float, float]:
        """The ends of the axis; the outer cells of a quantized axis have their value in the middle."""
        low, high = float(self.low or 0), float(self.high or 0)
        ends = self._warp(np.array([low, high]))
        levels = self.levels
        if levels is None or levels == 1:
            return float(ends[0]), float(ends[1])
        half = float(self._spacing) / 2
        top = float(_exact(self.low) + (levels - 1) * self._spacing)
        inner = self._warp(np.array([low + half, top - half, top]))
        return float(2 * ends[0] - inner[0]), float(2 * inner[2] - inner[1])

    def _warp(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(np.maximum(numbers, np.finfo(np.float64).tiny)) if self.logarithmic else numbers

    def _unwarp(self, axis: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(axis) if self.logarithmic else axis

    def _cumulative(self, axis: NDArray[np.float64]) -> NDArray[np.float64]:
        start, stop = self._edges
        if stop <= start:
            return np.full(axis.shape, 0.5)
        share = np.clip((axis - start) / (stop - start), 0.0, 1.0)
        if self.distribution in ("uniform", "logUniform"):
            return share
        tail = STANDARD_NORMAL.cdf(-SIGMAS)
        mass = np.array([STANDARD_NORMAL.cdf(SIGMAS * (2 * x - 1)) for x in share], dtype=np.float64)
        return np.clip((mass - tail) / (1 - 2 * tail), 0.0, 1.0)

    def _quantile(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        start, stop = self._edges
        share = np.clip(unit, 0.0, 1.0)
        if self.distribution in ("normal", "logNormal"):
            tail = STANDARD_NORMAL.cdf(-SIGMAS)
            z = [STANDARD_NORMAL.inv_cdf(tail + (1 - 2 * tail) * x) for x in share]
            share = np.clip(np.array(z) / (2 * SIGMAS) + 0.5, 0.0, 1.0)
        return np.asarray(start + share * (stop - start), dtype=np.float64)

    def _tidy(self, numbers: NDArray[np.float64]) -> list[float]:
        """Round to DIGITS of the range (of the value itself on a logarithmic axis), within the range."""
        low, high = float(self.low or 0), float(self.high or 0)
        if self.logarithmic:
            rounded = [float(f"{x:.{DIGITS}g}") for x in numbers.tolist()]
        else:
            decimals = DIGITS - math.ceil(math.log10(high - low)) if high > low else DIGITS
            rounded = [round(x, decimals) for x in numbers.tolist()]
        return [min(max(x, low), high) for x in rounded]


def _exact(value: float | None) -> Decimal:
    """Return the decimal number as written: 0.1 is a tenth, not its binary neighbour."""
    return Decimal(repr(value))
