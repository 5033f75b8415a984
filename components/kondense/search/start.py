"""Configurations to start from, such as the defaults that one would use without a search.

The setting `start` lists them, `lr=0.05,momentum=0.9` each, joined by semicolons. They come first in the first bracket
whose trials all get the full resource, so that the result of the search is not worse and a model learns from them.
"""

import re
from collections.abc import Collection, Mapping

from kondense.errors import InputError
from kondense.search.brackets import BracketPlan
from kondense.search.ledger import digest
from kondense.search.parameter import Parameter
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

SETTING = "start"
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


def read_start(settings: Mapping[str, str], space: SearchSpace, plan: BracketPlan) -> list[dict[str, str]]:
    """Return the configurations, as Katib's strings.

    Args:
        settings: of the algorithm.
        space: without the resource.
        plan: the brackets.

    Raises:
        ValueError: one does not give each parameter a value of its range, or there are more than the bracket has slots.
    """
    texts = [text for text in settings.get(SETTING, "").split(";") if text.strip()]
    slots = plan.brackets[-1].sizes[0]
    if len(texts) > slots:
        raise InputError(f"setting {SETTING} must list at most {slots} configurations, but got {len(texts)}.")
    points = [_read(text, space) for text in texts]
    for number, point in enumerate(points):
        if point in points[:number]:
            raise InputError(
                f"setting {SETTING} must list a configuration once, but got {texts[number].strip()!r} again."
            )
    return points


def with_best(points: list[dict[str, str]], plan: BracketPlan, best: Mapping[str, str] | None) -> list[dict[str, str]]:
    """Return the configurations with the best one of earlier trials behind them, where there is a seat for it."""
    if best is None or best in points or len(points) >= plan.brackets[-1].sizes[0]:
        return points
    return [*points, dict(best)]


def starting_point(points: list[dict[str, str]], plan: BracketPlan, bracket: int, config: int) -> dict[str, str] | None:
    """Return the configuration to start from for this bracket and number; None if there is none."""
    if bracket != len(plan.brackets) - 1 or config >= len(points):
        return None
    return points[config]


def taken(points: list[dict[str, str]], plan: BracketPlan, state: ExperimentState, bracket: int) -> Collection[str]:
    """Return the digests that a bracket must not draw: those issued, and those kept for the full resource."""
    known = state.ledger.known
    return known if bracket >= len(plan.brackets) - 1 else {*known, *map(digest, points)}


def _read(text: str, space: SearchSpace) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    values = {name.strip(): value.strip() for name, _, value in pairs}
    if sorted(name.strip() for name, _, _ in pairs) != sorted(space.names):
        raise InputError(
            f"setting {SETTING} must be name=value for each of {', '.join(space.names)}, but got {text.strip()!r}."
        )
    return space.settled({parameter.name: _value(parameter, values[parameter.name]) for parameter in space.parameters})


def _value(parameter: Parameter, value: str) -> str:
    """Return a value in the spelling in which the parameter draws it; an int must be written as one."""
    if parameter.values:
        number = _number(value) if parameter.kind == "discrete" else None
        same = [text for text in parameter.values if text == value or (number is not None and float(text) == number)]
        if not same:
            raise InputError(
                f"setting {SETTING}: {parameter.name} must be one of {', '.join(parameter.values)}, but got {value!r}."
            )
        return same[0]
    assert parameter.low is not None and parameter.high is not None, "a range has two ends"
    if not parameter.low <= parameter.number(value) <= parameter.high:
        raise InputError(
            f"setting {SETTING}: {parameter.name} must be in [{parameter.low:g}, {parameter.high:g}], but got {value}."
        )
    if parameter.kind == "int" and not WHOLE.fullmatch(value):
        raise InputError(
            f"setting {SETTING}: {parameter.name} must be a whole number, without a point, but got {value}."
        )
    if parameter.levels is None:
        return repr(parameter.number(value) + 0.0)  # -0.0 is 0.0
    (spelled,) = parameter.from_unit(parameter.to_unit([value]))
    if float(spelled) != parameter.number(value):
        step = "a whole number" if parameter.step is None else f"{parameter.low:g} plus steps of {parameter.step:g}"
        raise InputError(f"setting {SETTING}: {parameter.name} must be {step}, but got {value}.")
    return spelled


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
