"""The order of compression as one string: ``prune:l1:0.5 > distill > quantize:static``. Stdlib only.

A step is a stage, then, joined by colons, its method, its amount, and any of its parameters as ``name=value``:
``prune:magnitude:0.98:epochs=10``. The amount is the sparsity of prune, the student's width of distill and the bits of
quantize.

The teacher of every step is the trained network that the recipe starts from. ``distill`` as the first step makes a new
student; later it trains the model as it stands, so ``prune > distill`` makes a pruned network the student of its own
teacher.
"""

import dataclasses
from collections.abc import Mapping

from kondense.distill.config import DistillConfig
from kondense.errors import InputError

STAGES = ("prune", "distill", "quantize")
AMOUNTS: Mapping[str, str] = {"prune": "sparsity", "distill": "width", "quantize": "bits"}
NEW_STUDENT = ("student_network", "width", "start")  # parameters of distill that make a new network


@dataclasses.dataclass(frozen=True)
class RecipeStep:
    """A stage and the texts of the parameters that the recipe gives it, by name.

    A later distill has the parameters of a new student at their defaults, whatever the stage's are set to elsewhere.
    """

    stage: str
    settings: Mapping[str, str]


def parse_recipe(text: str) -> tuple[RecipeStep, ...]:
    """Return the steps in order; a leading ``train`` says nothing and may be left out.

    Raises:
        ValueError: the recipe names another stage, gives a parameter twice, goes on after quantize, whose integers
            training would change, or builds a new student in a later step, which would undo the earlier ones.
    """
    parts = [part.strip() for part in text.split(">")]
    if parts[0] == "train":
        parts = parts[1:]
    steps = tuple(_parse_step(part, text) for part in parts)
    for number, step in enumerate(steps, start=1):
        if step.stage == "quantize" and number < len(steps):
            raise InputError(f"recipe must end with quantize when it has it, but got {text!r}.")
        given = [name for name in NEW_STUDENT if name in step.settings]
        if number > 1 and step.stage == "distill" and given:
            raise InputError(
                f"recipe must give {given[0]} to distill in the first step only, because a new student undoes the"
                f" steps before it, but got {text!r}."
            )
    return steps[:1] + tuple(_as_it_stands(step) for step in steps[1:])


def _as_it_stands(step: RecipeStep) -> RecipeStep:
    if step.stage != "distill":
        return step
    defaults = {name: str(getattr(DistillConfig(), name)) for name in NEW_STUDENT}
    return dataclasses.replace(step, settings={**defaults, **step.settings})


def _parse_step(part: str, text: str) -> RecipeStep:
    stage, *rest = [field.strip() for field in part.split(":")]
    if stage not in STAGES:
        raise InputError(f"recipe must name steps of {', '.join(STAGES)}, but got {stage!r} in {text!r}.")
    places = ["method", AMOUNTS[stage]]
    settings: dict[str, str] = {}
    for field in rest:
        name, equals, value = (each.strip() for each in field.partition("="))
        if not equals:
            if not places or not field:
                raise InputError(
                    f"a step of a recipe must be stage:method:amount:name=value, but got {field!r} in {part!r}."
                )
            name, value = places.pop(0), field
        else:
            places.clear()
        if name in settings:
            raise InputError(f"a step of a recipe must give {name} once, but got {part!r}.")
        settings[name] = value
    return RecipeStep(stage, settings)
