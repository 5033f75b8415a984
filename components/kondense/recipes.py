"""Recipes: a sequence of compression steps as one text, ``prune:l1:0.5 > distill > quantize:static``. Free of torch.

``compose`` turns a recipe into the Configs of its steps for ``kondense run`` and ``kondense compile``, for trials and
for ``kd.compress``, so that a recipe means the same wherever it is read.

A step is a stage, followed by its method, its amount, and any of its parameters as ``name=value``, joined by colons:
``prune:magnitude:0.98:epochs=10``. The amount is the sparsity of prune, the width of the student of distill and the
bits of quantize. A stage of another package takes ``name=value`` only. A parameter that the text omits has the default
of the pipeline step (``STEPS``) that the method belongs to: ``prune_weights`` for methods that zero weights,
``pack_weights`` for methods that only store weights in fewer bits, otherwise the step with the stage's name.

The teacher of every step is the trained network that the recipe starts from. ``distill`` as the first step trains a
new student; later it trains the compressed model itself, so in ``prune > distill`` the pruned network is the student.
"""

import dataclasses
import typing
from collections.abc import Mapping

from kondense.config import Config
from kondense.distill.config import DistillConfig
from kondense.errors import InputError, meant
from kondense.profiles import Value
from kondense.prune.methods import METHODS as PRUNING
from kondense.quantize.methods import METHODS as QUANTIZERS
from kondense.stages import BUILT_IN, STAGES

M = typing.TypeVar("M")

AMOUNTS: Mapping[str, str] = {"prune": "sparsity", "distill": "width", "quantize": "bits"}
# Parameters of distill that define a new network, with the values that they have if the student is given.
SAME_NETWORK: Mapping[str, Value] = {
    name: DistillConfig().to_dict()[name] for name in ("student_network", "width", "start")
}


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of the pipelines: a stage with default values of its own; the graph itself sets the fields ``owned``."""

    stage: str
    defaults: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    owned: tuple[str, ...] = ()

    @property
    def config(self) -> type[Config]:
        """The stage's Config."""
        return STAGES[self.stage].config_class


STEPS: Mapping[str, Step] = {
    "quantize": Step("quantize"),
    "prune": Step("prune"),
    "prune_weights": Step("prune", {"method": "magnitude", "sparsity": 0.95, "epochs": 5}),
    "pack_weights": Step("quantize", {"method": "weight_only", "bits": 5}),
    "distill": Step("distill"),
}


@dataclasses.dataclass(frozen=True)
class RecipeStep:
    """One step of a recipe as it is written: a stage and the texts of its parameters."""

    stage: str
    settings: Mapping[str, str]

    @property
    def step(self) -> str:
        """The pipeline step whose defaults it has."""
        method = self.settings.get("method", "")
        if self.stage == "prune" and method in PRUNING:
            return "prune_weights" if PRUNING[method].kind == "weights" else "prune"
        if self.stage == "quantize" and method in QUANTIZERS:
            return str(QUANTIZERS[method].options.get("step", "quantize"))
        return self.stage


@dataclasses.dataclass(frozen=True)
class Composed:
    """One step of a recipe, ready to run.

    Attributes:
        stage: the stage.
        step: the pipeline step whose defaults it has.
        config: all parameters.
        stated: names of the parameters that the recipe states.
    """

    stage: str
    step: str
    config: Config
    stated: tuple[str, ...]


def compose(
    text: str,
    configs: Mapping[str, Config] | None = None,
    settings: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Composed, ...]:
    """Return the steps of a recipe in order.

    Args:
        text: the recipe.
        configs: replace the default Configs of pipeline steps, by step.
        settings: texts of parameters by stage, for every step of that stage; the recipe's own outweigh them.

    Raises:
        InputError: a malformed recipe (see ``parse_recipe``), or a parameter that is unknown or out of its range.
    """
    composed = []
    for number, step in enumerate(parse_recipe(text), start=1):
        base = STEPS.get(step.step) or Step(step.stage)
        config = (configs or {}).get(step.step) or base.config(**base.defaults)
        try:
            config = config.updated({**(settings or {}).get(step.stage, {}), **step.settings})
        except ValueError as error:
            raise InputError(f"step {number} ({step.stage}): {error}") from None
        composed.append(Composed(step.stage, step.step, config, tuple(step.settings)))
    return tuple(composed)


def models_of(stage: str, model: M, teacher: M, *, taught: bool = True) -> dict[str, M]:
    """Return the models that a step takes, by input; a model that is the teacher itself is one input only.

    The first step of a recipe gets the teacher alone: distill trains a new student, prune and quantize use the outputs
    of the model before compression. (KFP's metadata store accepts an artifact as one input of a task only.)

    Args:
        stage: the step's stage.
        model: the model to compress.
        teacher: the trained network that the recipe starts from.
        taught: False omits the teacher where the stage does not require it.
    """
    models = {"model": model, "teacher": teacher}
    optional = {artifact.name: artifact.optional for artifact in STAGES[stage].inputs if artifact.name in models}
    return {
        name: models[name]
        for name in optional
        if not optional[name] or (model is not teacher and (taught or name != "teacher"))
    }


def parse_recipe(text: str) -> tuple[RecipeStep, ...]:
    """Return the steps as they are written, in order; a leading ``train`` has no effect.

    In a later distill, parameters of a new student have the Config's defaults, whatever they are set to elsewhere.

    Raises:
        InputError: the recipe names an unknown stage, gives a parameter twice, has a step after quantize, whose
            integers training would change, or defines a new student in a later step, which would undo the earlier
            ones.
    """
    parts = [part.strip() for part in text.split(">")]
    if parts[0] == "train":
        parts = parts[1:]
    steps = tuple(_parse_step(part, text) for part in parts)
    for number, step in enumerate(steps, start=1):
        if step.stage == "quantize" and number < len(steps):
            raise InputError(f"quantize must be the last step of a recipe, but got {text!r}.")
        defined = [name for name in SAME_NETWORK if name in step.settings]
        if number > 1 and step.stage == "distill" and defined:
            raise InputError(
                f"distill may have {defined[0]} only as the first step of a recipe, because a new student undoes the"
                f" earlier steps, but got {text!r}."
            )
    return steps[:1] + tuple(_same_network(step) for step in steps[1:])


def _is_registered(stage: str) -> bool:
    """Return whether another package provides the stage, and it makes a Model from a Model."""
    if stage not in STAGES or stage in {built_in.name for built_in in BUILT_IN}:
        return False
    inputs, outputs = STAGES[stage].inputs, STAGES[stage].outputs
    return "model" in [artifact.name for artifact in inputs] and [artifact.type for artifact in outputs] == ["Model"]


def _same_network(step: RecipeStep) -> RecipeStep:
    if step.stage != "distill":
        return step
    fixed = {name: str(value) for name, value in SAME_NETWORK.items()}
    return dataclasses.replace(step, settings={**fixed, **step.settings})


def _parse_step(part: str, text: str) -> RecipeStep:
    stage, *rest = [field.strip() for field in part.split(":")]
    if stage not in AMOUNTS and not _is_registered(stage):
        known = ", ".join(AMOUNTS)
        raise InputError(f"recipe steps must be {known}, but got {stage!r} in {text!r}{meant(stage, AMOUNTS)}.")
    positions = ["method", AMOUNTS[stage]] if stage in AMOUNTS else []
    settings: dict[str, str] = {}
    for field in rest:
        name, equals, value = (word.strip() for word in field.partition("="))
        if not equals:
            if not positions or not field:
                raise InputError(
                    f"a step of a recipe must be stage:method:amount:name=value, but got {field!r} in {part!r}."
                )
            name, value = positions.pop(0), field
        else:
            positions.clear()
        if name in settings:
            raise InputError(f"a step of a recipe must give {name} once, but got {part!r}.")
        settings[name] = value
    return RecipeStep(stage, settings)
