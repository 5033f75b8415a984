"""The baseline of a local run, such as the configuration that one would use without a search.

An Experiment has it as an annotation, which Katib ignores: ``kondense/baseline: lr=0.05, momentum=0.9, epochs=9``.
It runs once, after the search has succeeded, and is not part of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kondense.katib.fields import Violation
from kondense.search.space import SearchSpace

ANNOTATION = "kondense/baseline"
PATH = f"metadata.annotations[{ANNOTATION}]"


def read(document: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the baseline's assignments as Katib's strings, None if the Experiment has none."""
    text = (document["metadata"].get("annotations") or {}).get(ANNOTATION)
    if text is None:
        return None
    pairs = [pair.partition("=") for pair in str(text).split(",") if pair.strip()]
    return {name.strip(): value.strip() for name, _, value in pairs}


def broken(document: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield the violations of a baseline, for an Experiment that complies with the webhook's rules."""
    assignments = read(document)
    if assignments is None:
        return
    space = SearchSpace.from_katib(document["spec"]["parameters"])
    names = [parameter.name for parameter in space.parameters]
    if sorted(assignments) != sorted(names):
        yield Violation(PATH, f"must be name=value for each of {', '.join(names)}", sorted(assignments))
        return
    for parameter in space.parameters:
        text = assignments[parameter.name]
        if parameter.ordered:
            try:
                parameter.number(text)
            except ValueError as error:
                yield Violation(PATH, str(error), text)
        elif text not in parameter.values:
            yield Violation(PATH, f"{parameter.name} must be one of {', '.join(parameter.values)}", text)
