"""The search space of an Experiment.

Legend: N configurations, D parameters; a configuration is a mapping of names to Katib's strings (`assignments`)
or a row of coordinates in the unit cube.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError
from kondense.search.conditions import Condition, read_conditions
from kondense.search.parameter import DISTRIBUTIONS, EXACT, KINDS, Distribution, Kind, Parameter

__all__ = ["DISTRIBUTIONS", "KINDS", "Parameter", "SearchSpace"]

FEASIBLE_KEYS = ("min", "max", "step", "distribution", "list")
# What a suggester computes grows with both, and whoever can call the suggestion service chooses them.
MOST_PARAMETERS = 1_000
MOST_VALUES = 10_000  # of all lists


@dataclass(frozen=True)
class SearchSpace:
    """The parameters of an Experiment, in its order.

    Args:
        parameters: of the space.
        conditions: with which some of them count; one that does not count has its first value.

    Raises:
        ValueError: there is no parameter, or two have the same name.
    """

    parameters: tuple[Parameter, ...]
    conditions: tuple[Condition, ...] = field(default=(), repr=False)  # the settings have their text

    def __post_init__(self) -> None:
        if not self.parameters:
            raise InputError("the search space must have at least one parameter, but got none.")
        name, times = Counter(self.names).most_common(1)[0]
        if times > 1:
            raise InputError(f"parameter names must be unique, but {name!r} occurs twice.")

    @classmethod
    def from_katib(
        cls, parameters: Sequence[Mapping[str, Any]], settings: Mapping[str, str] | None = None
    ) -> "SearchSpace":
        """Read `spec.parameters` of an Experiment.

        Args:
            parameters: mappings with `name`, `parameterType` and `feasibleSpace` (min, max, step, distribution, list).
            settings: of the algorithm, with the conditions.

        Raises:
            ValueError: a rule is broken; the message gives the parameter, the rule and the value.
        """
        listed = sum(len((each.get("feasibleSpace") or {}).get("list") or ()) for each in parameters)
        for what, count, most in (("parameters", len(parameters), MOST_PARAMETERS), ("values", listed, MOST_VALUES)):
            if count > most:
                raise InputError(f"the search space must have at most {most:,} {what}, but got {count:,}.")
        read = tuple(_read_parameter(parameter) for parameter in parameters)
        return cls(read, read_conditions(settings or {}, read))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, [D]."""
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def size(self) -> int | None:
        """The number of different configurations; None if a parameter is continuous."""
        levels = [parameter.levels for parameter in self.parameters]
        return None if None in levels else math.prod(cast(list[int], levels))

    def __getitem__(self, name: str) -> Parameter:
        """Return the parameter called `name`.

        Raises:
            ValueError: there is none; the message lists the existing names.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise InputError(f"no parameter is called {name!r}; the parameters are {', '.join(self.names)}.")

    def check(self, assignments: Mapping[str, str]) -> None:
        """Raise InputError unless each assignment is a value of a parameter, or a number where that has a range."""
        for name, text in assignments.items():
            parameter = self[name]
            if not text.isprintable() or (parameter.values and not parameter.contains(text)):
                raise parameter.error(f"a value must be one of {', '.join(parameter.values)}, but got {text!r}")
            if parameter.ordered:
                parameter.number(text)

    def without(self, name: str) -> "SearchSpace":
        """Return this space without the parameter called `name`."""
        dropped = self[name]
        conditions = tuple(each for each in self.conditions if name not in (each.name, each.parent))
        return SearchSpace(tuple(parameter for parameter in self.parameters if parameter is not dropped), conditions)

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Draw configurations from the parameters' distributions: unit-cube rows [count, D]."""
        return rng.random((count, len(self.parameters)))

    def to_unit(self, configurations: Sequence[Mapping[str, str]]) -> NDArray[np.float64]:
        """Return the unit-cube rows [N, D] of configurations given as strings.

        Raises:
            ValueError: a string is not a value of its parameter.
        """
        unit = np.empty((len(configurations), len(self.parameters)))
        for column, parameter in enumerate(self.parameters):
            unit[:, column] = parameter.to_unit([configuration[parameter.name] for configuration in configurations])
        return unit

    def from_unit(self, unit: NDArray[np.float64]) -> list[dict[str, str]]:
        """Return the configurations at unit-cube rows [N, D], as Katib's strings."""
        unit = self._settled(unit)
        columns = [parameter.from_unit(unit[:, column]) for column, parameter in enumerate(self.parameters)]
        return [dict(zip(self.names, values, strict=True)) for values in zip(*columns, strict=True)]

    def snap(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the unit-cube rows [N, D] of the configurations at `unit`: the middle of its cell for a value."""
        unit = self._settled(unit)
        snapped = unit.copy()
        for column, parameter in enumerate(self.parameters):
            if parameter.levels is not None:
                snapped[:, column] = parameter.snap(unit[:, column])
        return snapped

    def point(self, index: int) -> dict[str, str]:
        """Return configuration number `index` of a finite space; the last parameter changes fastest."""
        chosen: dict[str, str] = {}
        for parameter in reversed(self.parameters):
            index, level = divmod(index, cast(int, parameter.levels))
            chosen[parameter.name] = parameter.level(level)
        return self.settled({name: chosen[name] for name in self.names})

    def settled(self, configuration: Mapping[str, str]) -> dict[str, str]:
        """Return a configuration with the first value of each parameter that does not count in it."""
        first = np.zeros(1)
        idle = [each for each in self.conditions if configuration[each.parent] not in each.values]
        return {**configuration, **{each.name: self[each.name].from_unit(first)[0] for each in idle}}

    def _settled(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return rows [N, D] in which the parameters that do not count have the coordinate 0."""
        if not self.conditions:
            return unit
        settled = unit.copy()
        for each in self.conditions:
            parents = self[each.parent].from_unit(unit[:, self.names.index(each.parent)])
            idle = [parent not in each.values for parent in parents]
            settled[idle, self.names.index(each.name)] = 0.0
        return settled


def _read_parameter(entry: Mapping[str, Any]) -> Parameter:
    name, feasible = str(entry.get("name", "")), entry.get("feasibleSpace") or {}
    unknown = sorted(set(feasible) - set(FEASIBLE_KEYS))
    if unknown:
        raise InputError(f"parameter {name!r}: feasibleSpace takes {', '.join(FEASIBLE_KEYS)}, but got {unknown[0]!r}.")
    return Parameter(
        name=name,
        kind=cast(Kind, str(entry.get("parameterType", ""))),
        low=_read_number(name, feasible, "min"),
        high=_read_number(name, feasible, "max"),
        step=_read_number(name, feasible, "step"),
        distribution=cast(Distribution, str(feasible.get("distribution") or "uniform")),
        values=tuple(_read_text(name, value) for value in feasible.get("list") or ()),
    )


def _read_number(name: str, feasible: Mapping[str, Any], key: str) -> float | None:
    text = feasible.get(key)
    if text is None or text == "":  # Katib's protobuf form sends an absent number as an empty string
        return None
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise InputError(f"parameter {name!r}: {key} must be a number, but got {text!r}.") from None
    digits = str(text).strip().removeprefix("-")
    # An integer beyond 2^53 would become its neighbour, unseen.
    return int(text) if math.isfinite(value) and abs(value) >= EXACT and digits.isdecimal() else value


def _read_text(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"parameter {name!r}: a value of a list must be a string, but got {value!r}.")
    return str(value)
