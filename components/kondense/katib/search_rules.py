"""Rules of the suggestion service, which it checks when the Experiment starts: ranges and settings."""

from collections.abc import Iterator, Mapping
from typing import Any

from kondense.katib.document import read_search
from kondense.katib.fields import IN_RULE, Violation
from kondense.search.space import SearchSpace
from kondense.search.suggesters import SUGGESTERS

# The webhook's rules report these already, in Katib's own words.
LIST_KINDS, RANGE_KINDS = ("categorical", "discrete"), ("int", "double")


def broken(document: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield the violations that ``ValidateAlgorithmSettings`` would answer with INVALID_ARGUMENT."""
    spec = document["spec"]
    parameters = spec.get("parameters", [])
    sound = True
    for i, parameter in enumerate(parameters):
        try:
            SearchSpace.from_katib([parameter])
        except ValueError as error:
            sound = False
            if _complete(parameter):
                yield Violation(f"spec.parameters[{i}]", str(error), IN_RULE)
    names = [parameter.get("name") for parameter in parameters]
    algorithm = spec.get("algorithm", {})
    if not sound or not parameters or len(set(names)) < len(names) or algorithm.get("algorithmName") not in SUGGESTERS:
        return
    try:
        read_search(document).validate()
    except ValueError as error:
        yield Violation("spec.algorithm.algorithmSettings", str(error), IN_RULE)


def _complete(parameter: Mapping[str, Any]) -> bool:
    """Return whether the parameter has the parts that its type needs, so that its values are wrong."""
    space, kind = parameter.get("feasibleSpace", {}), parameter.get("parameterType")
    if not parameter.get("name"):
        return False
    if kind in LIST_KINDS:
        return not any(space.get(key) for key in ("min", "max", "step"))
    return kind in RANGE_KINDS and bool(space.get("min")) and bool(space.get("max")) and "list" not in space
