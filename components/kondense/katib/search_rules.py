"""What the suggestion service would reject when the Experiment starts: a bad range, a wrong setting."""

from collections.abc import Iterator, Mapping
from typing import Any

from kondense.katib.fields import TOLD, Violation
from kondense.search.space import SearchSpace
from kondense.search.suggesters import SUGGESTERS, load_suggester

# What the webhook's rules report already, in Katib's own words.
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
                yield Violation(f"spec.parameters[{i}]", str(error), TOLD)
    names = [parameter.get("name") for parameter in parameters]
    algorithm = spec.get("algorithm", {})
    name = algorithm.get("algorithmName")
    if not sound or not parameters or len(set(names)) < len(names) or name not in SUGGESTERS:
        return
    settings = {item.get("name", ""): item.get("value", "") for item in algorithm.get("algorithmSettings", [])}
    try:
        load_suggester(name).validate(
            SearchSpace.from_katib(parameters),
            settings,
            max_trial_count=spec.get("maxTrialCount"),
            parallel_trial_count=spec.get("parallelTrialCount"),
        )
    except ValueError as error:
        yield Violation("spec.algorithm.algorithmSettings", str(error), TOLD)


def _complete(parameter: Mapping[str, Any]) -> bool:
    """Tell whether the parameter has the parts its type needs, so that its values are to blame."""
    space, kind = parameter.get("feasibleSpace", {}), parameter.get("parameterType")
    if not parameter.get("name"):
        return False
    if kind in LIST_KINDS:
        return not any(space.get(key) for key in ("min", "max", "step"))
    return kind in RANGE_KINDS and bool(space.get("min")) and bool(space.get("max")) and "list" not in space
