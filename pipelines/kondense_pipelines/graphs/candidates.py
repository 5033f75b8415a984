"""Which candidates a run makes: the standard ones, and recipes of the user's own.

KFP's graphs are fixed when they are compiled, so a plan is given to ``kondense run`` and ``kondense compile``, and
every step of a recipe is a task that is seen.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from kondense.config import Config, check_choice
from kondense.errors import InputError
from kondense.profiles import Value
from kondense.prune.config import MASKING
from kondense.trial.recipe import parse_recipe

MOST_RECIPES = 4  # as many inputs has the report's component for them
NAMED = re.compile(r"\s*([a-z0-9][a-z0-9-]*)\s*=(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Task:
    """One task on the way to a candidate.

    Attributes:
        name: its display name; candidates that share a name share the task.
        step: the pipeline's step whose parameters it has.
        taught: the teacher's logits join its loss.
        overrides: parameters that outweigh the step's.
    """

    name: str
    step: str
    taught: bool = False
    overrides: Mapping[str, Value] = dataclasses.field(default_factory=dict)


# What makes a new student has no meaning for a student that is given.
AS_IT_STANDS: Mapping[str, Value] = {"student_network": "", "width": 0.5, "start": "auto"}
STANDARD: Mapping[str, tuple[Task, ...]] = {
    "quantized": (Task("quantize", "quantize"),),
    "pruned": (Task("prune", "prune"),),
    "pruned-quantized": (Task("prune", "prune"), Task("quantize pruned", "quantize")),
    "distilled": (Task("distill", "distill"),),
    "distilled-quantized": (Task("distill", "distill"), Task("quantize distilled", "quantize")),
    "pruned-distilled-quantized": (
        Task("prune", "prune"),
        Task("distill pruned", "distill", overrides=AS_IT_STANDS),
        Task("quantize pruned-distilled", "quantize"),
    ),
    "sparse-packed": (Task("prune weights", "prune_weights", taught=True), Task("pack weights", "pack_weights")),
}
# Methods whose defaults in a recipe are those of another step than the stage's first.
RECIPE_METHODS: Mapping[str, str] = {
    **dict.fromkeys(MASKING, "prune_weights"),
    **dict.fromkeys(("codebook", "fixed_point", "rate_distortion", "weight_only"), "pack_weights"),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The tasks of every candidate, by the candidate's name; ``recipes`` are the names that are not standard."""

    candidates: Mapping[str, tuple[Task, ...]] = dataclasses.field(default_factory=lambda: dict(STANDARD))

    @property
    def recipes(self) -> tuple[str, ...]:
        """The names of the user's own candidates, in order."""
        return tuple(name for name in self.candidates if name not in STANDARD)

    def task_names(self) -> tuple[str, ...]:
        """Return the display names from the teacher's evaluation to the last candidate's, in the order to run them."""
        names = ["evaluate teacher"]
        for candidate, tasks in self.candidates.items():
            names += [task.name for task in tasks if task.name not in names]
            names.append(f"evaluate {candidate}")
        return tuple(names)


def read_plan(configs: Mapping[str, Config], candidates: str | None = None, recipes: Sequence[str] = ()) -> Plan:
    """Return the plan that the texts mean.

    Args:
        configs: the Config of every step.
        candidates: names of standard candidates joined by commas, ``none`` for none of them; None for all.
        recipes: recipes (``kondense.trial.recipe``), each as ``NAME=STEPS`` or ``STEPS``. A step has the parameters
            of the pipeline's step with its method, or of the stage's first, where the recipe does not give them.

    Raises:
        ValueError: an unknown candidate, a malformed recipe, a parameter out of range, a name given twice, or more
            recipes than a report takes.
    """
    if len(recipes) > MOST_RECIPES:
        raise InputError(f"--recipe must be given at most {MOST_RECIPES} times, but got {len(recipes)}.")
    chosen: dict[str, tuple[Task, ...]] = {}
    for name in _names(candidates):
        check_choice("--candidates", name, (*STANDARD, "none"))
        chosen[name] = STANDARD[name]
    for number, text in enumerate(recipes, start=1):
        match = NAMED.fullmatch(text)
        name, steps = match.groups() if match else (f"recipe-{number}", text)
        if name in STANDARD or name in chosen or name == "teacher":
            raise InputError(f"a recipe must have a name of its own, but got {name!r}.")
        chosen[name] = tuple(_tasks(configs, name, steps))
    return Plan(chosen)


def _names(candidates: str | None) -> list[str]:
    if candidates is None:
        return list(STANDARD)
    return [] if candidates.strip() == "none" else [name.strip() for name in candidates.split(",")]


def _tasks(configs: Mapping[str, Config], name: str, text: str) -> Iterable[Task]:
    for number, step in enumerate(parse_recipe(text), start=1):
        base = RECIPE_METHODS.get(step.settings.get("method", ""), step.stage)
        try:
            values = configs[base].updated(step.settings).to_dict()
        except ValueError as error:
            raise InputError(f"recipe {name}, step {number} ({step.stage}): {error}") from None
        overrides = {each: values[each] for each in step.settings}
        yield Task(f"{step.stage} {number} of {name}", base, taught=True, overrides=overrides)
