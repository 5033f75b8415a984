"""Conditional parameters in Katib's flat space: the algorithm setting `conditions`.

    bits if recipe has quantize; sparsity, lr if recipe has prune|distill; momentum if optimizer is sgd|nesterov

Katib gives every parameter a value in every trial. A parameter whose condition does not hold has its first value there,
so that configurations that differ in nothing that counts are one configuration, for the ledger as for the models.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kondense.errors import InputError
from kondense.search.parameter import Parameter

SETTING = "conditions"
SETTINGS = {SETTING: "NAME, NAME if PARENT is VALUE|VALUE, or if PARENT has STEP|STEP, joined by semicolons"}
# Blanks are matched from the first of a row only, so that the time is linear in the text.
CONDITION = re.compile(r"(.+?)(?<!\s)\s+if\s+(\S+)\s+(is|has)\s+(.+)")
STEP = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Condition:
    """A parameter that counts only with some values of another one.

    Args:
        name: of the parameter.
        parent: of the other one, which has a list of values.
        values: of the parent with which the parameter counts.
    """

    name: str
    parent: str
    values: tuple[str, ...]


def read_conditions(settings: Mapping[str, str], parameters: Sequence[Parameter]) -> tuple[Condition, ...]:
    """Return the conditions of a space.

    Args:
        settings: of the algorithm.
        parameters: of the space.

    Raises:
        ValueError: a text has another form, names a parameter or a value that is none, or a parameter twice; a parent
            has no list of values, or a condition of its own; the resource has one.
    """
    known = {parameter.name: parameter for parameter in parameters}
    conditions: dict[str, Condition] = {}
    steps: dict[str, dict[str, set[str]]] = {}
    for text in (part.strip() for part in settings.get(SETTING, "").split(";") if part.strip()):
        match = CONDITION.fullmatch(text)
        if match is None:
            raise InputError(
                f"setting {SETTING} must be NAME if PARENT is VALUE|VALUE, or NAME if PARENT has STEP|STEP, joined by "
                f"semicolons, but got {text!r}."
            )
        parent = _parameter(known, match[2])
        if parent.name not in steps:
            steps[parent.name] = _steps(parent)
        values = _values(parent, match[3], [each.strip() for each in match[4].split("|")], steps[parent.name])
        for name in (_parameter(known, each.strip()).name for each in match[1].split(",")):
            if name in conditions:
                raise InputError(f"setting {SETTING} must name a parameter once, but names {name!r} twice.")
            conditions[name] = Condition(name, parent.name, values)
    for condition in conditions.values():
        if condition.parent in conditions:
            raise InputError(
                f"setting {SETTING} must have parents that always count, but {condition.parent!r} does not."
            )
        if condition.name == settings.get("resource_name"):
            raise InputError(f"setting {SETTING} must not name the resource, but got {condition.name!r}.")
    return tuple(conditions.values())


def _parameter(known: Mapping[str, Parameter], name: str) -> Parameter:
    if name not in known:
        raise InputError(f"setting {SETTING} must name parameters of the space ({', '.join(known)}), but got {name!r}.")
    return known[name]


def _steps(parent: Parameter) -> dict[str, set[str]]:
    """Return the values of a parameter by the steps in them."""
    if not parent.values:
        raise InputError(
            f"setting {SETTING} must have parents with a list of values, but {parent.name} is {parent.kind}."
        )
    steps: dict[str, set[str]] = {}
    for value in parent.values:
        for step in STEP.split(value):
            steps.setdefault(step, set()).add(value)
    return steps


def _values(parent: Parameter, relation: str, words: Sequence[str], steps: Mapping[str, set[str]]) -> tuple[str, ...]:
    if relation == "is":
        listed = set(parent.values)
        for value in words:
            if value not in listed:
                raise InputError(
                    f"setting {SETTING}: {parent.name} must be one of {', '.join(parent.values)}, but got {value!r}."
                )
        return tuple(words)
    for step in words:
        if step not in steps:
            raise InputError(f"setting {SETTING}: a value of {parent.name} must have the step {step!r}, but none has.")
    chosen = set().union(*(steps[step] for step in words))
    return tuple(value for value in parent.values if value in chosen)
