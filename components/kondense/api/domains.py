"""The domains of the parameters of `kd.search`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kondense.search.parameter import Distribution, Kind, Parameter


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values of one parameter, made by `uniform`, `log_uniform`, `integers` or `choice`."""

    kind: Kind
    low: float | None = None
    high: float | None = None
    step: float | None = None
    distribution: Distribution = "uniform"
    values: tuple[Any, ...] = ()

    def parameter(self, name: str) -> Parameter:
        """Return the parameter of this name; a ValueError gives the rule that the domain breaks and the value."""
        texts = tuple(map(str, self.values))
        return Parameter(name, self.kind, self.low, self.high, self.step, self.distribution, texts)

    def value(self, text: str) -> Any:
        """Return the Python value of a suggester's string."""
        if self.values:
            return next(value for value in self.values if str(value) == text)
        return int(text) if self.kind == "int" else float(text)


def uniform(low: float, high: float, step: float | None = None) -> Domain:
    """Return the real numbers in [low, high], or those at distance `step` from each other.

    >>> uniform(0.0, 0.9).parameter("momentum").distribution
    'uniform'
    """
    return Domain("double", low, high, step)


def log_uniform(low: float, high: float) -> Domain:
    """Return the real numbers in [low, high], low > 0, uniform on a logarithmic axis.

    >>> log_uniform(1e-3, 1e-1).parameter("lr").low
    0.001
    """
    return Domain("double", low, high, distribution="logUniform")


def integers(low: int, high: int, step: int = 1, *, log: bool = False) -> Domain:
    """Return the integers from `low` to `high`, both included, uniform or, with `log`, uniform on a logarithmic axis.

    >>> integers(8, 64, step=8).parameter("width").levels
    8
    """
    return Domain("int", low, high, step, "logUniform" if log else "uniform")


def choice(values: Sequence[Any]) -> Domain:
    """Return the given values: ordered if all are numbers, else without order. Their texts must differ.

    >>> choice(["sgd", "adam"]).parameter("optimizer").ordered
    False
    """
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return Domain("discrete" if numbers else "categorical", values=tuple(values))
