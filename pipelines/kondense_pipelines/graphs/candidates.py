"""The candidates of a run: the standard ones, and recipes of the user.

KFP's graphs are fixed when they are compiled, so ``kondense run`` and ``kondense compile`` take the plan, and every
step of a recipe is a task of its own.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from kondense.candidates import MOST_RECIPES, STANDARD, TEACHER
from kondense.config import Config, check_choice
from kondense.errors import InputError
from kondense.profiles import Value
from kondense.recipes import SAME_NETWORK, STEPS, compose, parse_recipe

DONE = {"prune": "pruned", "distill": "distilled", "quantize": "quantized"}  # by stage
NAMED = re.compile(r"\s*([a-z0-9][a-z0-9-]*)\s*=(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Task:
    """One task on the way to a candidate.

    Attributes:
        name: its display name; candidates with tasks of the same name share the task.
        step: the pipeline's step whose parameters it has.
        taught: whether the teacher's logits join its loss.
        overrides: parameters that outweigh the step's.
        stage: the stage that runs; that of the step by default.
    """

    name: str
    step: str
    taught: bool = False
    overrides: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    stage: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", self.stage or STEPS[self.step].stage)


def _standard(text: str) -> tuple[Task, ...]:
    """Return the tasks of a standard candidate; those of candidates that begin alike have the same names."""
    tasks: list[Task] = []
    before: list[str] = []
    for written in parse_recipe(text):
        words = [written.step.replace("_", " "), *(before if written.step == written.stage else ())]
        overrides = SAME_NETWORK if before and written.stage == "distill" else {}
        tasks.append(Task(" ".join([words[0], "-".join(words[1:])]).strip(), written.step, overrides=overrides))
        before.append(DONE[written.stage])
    return tuple(tasks)


TASKS: Mapping[str, tuple[Task, ...]] = {name: _standard(text) for name, text in STANDARD.items()}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The tasks of every candidate, by the candidate's name; ``recipes`` are the names that are not standard."""

    candidates: Mapping[str, tuple[Task, ...]] = dataclasses.field(default_factory=lambda: dict(TASKS))

    @property
    def recipes(self) -> tuple[str, ...]:
        """The names of the user's recipes, in order."""
        return tuple(name for name in self.candidates if name not in STANDARD)

    @property
    def warning(self) -> str:
        """What a user should know before such a run; empty for nothing."""
        if self.candidates:
            return ""
        done = "the teacher is measured and published as it is"
        return f"there are no candidates: {done}; --recipe or --candidates adds some"

    def task_names(self) -> tuple[str, ...]:
        """Return the display names from the teacher's evaluation to the last candidate's, in the order to run them."""
        names = ["evaluate teacher"]
        for candidate, tasks in self.candidates.items():
            names += [task.name for task in tasks if task.name not in names]
            names.append(f"evaluate {candidate}")
        return tuple(names)


def read_plan(configs: Mapping[str, Config], candidates: str | None = None, recipes: Sequence[str] = ()) -> Plan:
    """Return the plan of a run.

    Args:
        configs: the Config of every step.
        candidates: names of standard candidates joined by commas, ``none`` for none of them; None for all.
        recipes: recipes (``kondense.recipes``), each as ``NAME=STEPS`` or ``STEPS``.

    Raises:
        InputError: an unknown candidate, a malformed recipe, a parameter out of range, a name given twice, or more
            recipes than a report takes.
    """
    if len(recipes) > MOST_RECIPES:
        raise InputError(f"--recipe must be given at most {MOST_RECIPES} times, but got {len(recipes)}.")
    chosen: dict[str, tuple[Task, ...]] = {}
    for name in _names(candidates):
        check_choice("--candidates", name, (*STANDARD, "none"))
        chosen[name] = TASKS[name]
    for number, text in enumerate(recipes, start=1):
        match = NAMED.fullmatch(text)
        name, steps = match.groups() if match else (f"recipe-{number}", text)
        if name in STANDARD or name in chosen or name == TEACHER:
            raise InputError(f"a recipe must have a name that no other candidate has, but got {name!r}.")
        try:
            chosen[name] = tuple(_tasks(configs, name, steps))
        except ValueError as error:
            raise InputError(f"recipe {name}: {error}") from None
    return Plan(chosen)


def _names(candidates: str | None) -> list[str]:
    if candidates is None:
        return list(STANDARD)
    return [] if candidates.strip() == "none" else [name.strip() for name in candidates.split(",")]


def _tasks(configs: Mapping[str, Config], name: str, text: str) -> Iterator[Task]:
    for number, composed in enumerate(compose(text, configs), start=1):
        values = composed.config.to_dict()
        if composed.step in STEPS:  # the others are the step's own
            values = {field: values[field] for field in composed.stated}
        yield Task(f"{composed.stage} {number} of {name}", composed.step, True, values, composed.stage)
