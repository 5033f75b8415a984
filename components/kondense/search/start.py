"""Configurations to start from: what one would use without a search.

The setting `start` states them, `lr=0.05,momentum=0.9` each, joined by semicolons. They are the first of the first
bracket that gives every trial the whole resource, so that the search ends with nothing worse, and a model knows them.
"""

from collections.abc import Mapping

from kondense.errors import InputError
from kondense.search.brackets import BracketPlan
from kondense.search.ledger import digest
from kondense.search.parameter import Parameter
from kondense.search.space import SearchSpace
from kondense.search.state import Board

SETTING = "start"


def read_start(settings: Mapping[str, str], space: SearchSpace, plan: BracketPlan) -> list[dict[str, str]]:
    """Return the configurations, as Katib's strings.

    Args:
        settings: of the algorithm.
        space: without the resource.
        plan: the brackets.

    Raises:
        ValueError: one does not give each parameter a value of its range, or there are more than the bracket takes.
    """
    texts = [text for text in settings.get(SETTING, "").split(";") if text.strip()]
    seats = plan.brackets[-1].sizes[0]
    if len(texts) > seats:
        raise InputError(f"setting {SETTING} must state at most {seats} configurations, but got {len(texts)}.")
    return [_read(text, space) for text in texts]


def starting_point(
    points: list[dict[str, str]], plan: BracketPlan, board: Board, bracket: int, config: int
) -> dict[str, str] | None:
    """Return the configuration to start from that belongs in this place; None where there is none, or it is known."""
    if bracket != len(plan.brackets) - 1 or config >= len(points) or digest(points[config]) in board.ledger.known:
        return None
    return points[config]


def _read(text: str, space: SearchSpace) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    given = {name.strip(): value.strip() for name, _, value in pairs}
    if sorted(given) != sorted(space.names):
        raise InputError(
            f"setting {SETTING} must be name=value of each of {', '.join(space.names)}, but got {text.strip()!r}."
        )
    for parameter in space.parameters:
        _check(parameter, given[parameter.name])
    return {name: given[name] for name in space.names}


def _check(parameter: Parameter, value: str) -> None:
    if parameter.values:
        if value not in parameter.values:
            raise InputError(
                f"setting {SETTING}: {parameter.name} must be one of {', '.join(parameter.values)}, but got {value!r}."
            )
        return
    assert parameter.low is not None and parameter.high is not None, "a range has two ends"
    if not parameter.low <= parameter.number(value) <= parameter.high:
        raise InputError(
            f"setting {SETTING}: {parameter.name} must be in [{parameter.low:g}, {parameter.high:g}], but got {value}."
        )
