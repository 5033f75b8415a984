"""Configurations to start from, such as the defaults that one would use without a search.

The setting `start` lists them, `lr=0.05,momentum=0.9` each, joined by semicolons. They come first in the first bracket
whose trials all get the full resource, so that the result of the search is not worse and a model learns from them.
"""

from collections.abc import Mapping

from kondense.errors import InputError
from kondense.search.brackets import BracketPlan
from kondense.search.ledger import digest
from kondense.search.parameter import Parameter
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

SETTING = "start"


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
    return [_read(text, space) for text in texts]


def starting_point(
    points: list[dict[str, str]], plan: BracketPlan, state: ExperimentState, bracket: int, config: int
) -> dict[str, str] | None:
    """Return the configuration to start from for this bracket and number; None if there is none or it is issued."""
    if bracket != len(plan.brackets) - 1 or config >= len(points) or digest(points[config]) in state.ledger.known:
        return None
    return points[config]


def _read(text: str, space: SearchSpace) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    values = {name.strip(): value.strip() for name, _, value in pairs}
    if sorted(values) != sorted(space.names):
        raise InputError(
            f"setting {SETTING} must be name=value for each of {', '.join(space.names)}, but got {text.strip()!r}."
        )
    for parameter in space.parameters:
        _check(parameter, values[parameter.name])
    return {name: values[name] for name in space.names}


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
