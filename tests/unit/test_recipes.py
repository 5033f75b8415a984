"""Recipes: one text, one meaning."""

import dataclasses
import importlib.metadata
import subprocess
import sys

import pytest
from kondense.config import Config, option
from kondense.profiles import DEFAULT_PROFILE, PROFILES
from kondense.prune.methods import METHODS as PRUNING
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.methods import METHODS as QUANTIZERS
from kondense.recipes import STEPS, compose, models_of, parse_recipe
from kondense.stages import GROUP, Artifact, Stage, Stages
from kondense.trial.config import TrialConfig
from kondense_pipelines.graphs.candidates import read_plan
from kondense_pipelines.graphs.parameters import resolve

RECIPES = (
    *(f"prune:{name}" for name in PRUNING.of_kind("channels") + PRUNING.of_kind("weights")),
    *(f"quantize:{name}" for name in ("static", "qat", "weight_only", "codebook")),
    "prune > quantize",
    "prune:l1:0.5:epochs=2 > distill:features > quantize:weight_only:3",
    "distill:width=0.25 > prune:magnitude:0.9",
    "quantize:qat:epochs=1",
)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_has_the_same_parameters_in_a_trial_and_in_the_pipeline(recipe):
    configs = resolve(DEFAULT_PROFILE)
    tasks = read_plan(configs, "none", [recipe]).candidates["recipe-1"]
    in_pipeline = [dataclasses.replace(configs[task.step], **task.overrides) for task in tasks]
    in_trial = TrialConfig(dataset_uri="d", recipe=recipe).steps
    assert [step.config for step in in_trial] == in_pipeline == [step.config for step in compose(recipe)]
    assert [step.stage for step in in_trial] == [task.stage for task in tasks]


def test_the_default_profile_has_the_defaults_of_the_steps():
    for step, values in PROFILES[DEFAULT_PROFILE].items():
        defaults = STEPS[step].config(**STEPS[step].defaults) if step in STEPS else resolve(DEFAULT_PROFILE)[step]
        assert {name: defaults.to_dict()[name] for name in values} == dict(values), step


def test_a_method_has_the_defaults_of_its_step():
    first, second = compose("prune:taylor > quantize:codebook")
    assert (first.step, first.config.epochs, first.config.sparsity) == ("prune_weights", 5, 0.95)
    assert (second.step, second.config.bits, second.config.method) == ("pack_weights", 5, "codebook")
    assert [step.step for step in compose("prune:fpgm > quantize:qat")] == ["prune", "quantize"]
    assert {QUANTIZERS[name].options.get("step", "quantize") for name in QUANTIZERS} <= {*STEPS}


def test_a_recipe_outweighs_settings_of_its_stage_which_outweigh_defaults():
    settings = {"prune": {"sparsity": "0.7", "epochs": "2"}, "quantize": {"bits": "3"}}
    prune, quantize = compose("prune:magnitude:0.9 > quantize:weight_only", settings=settings)
    assert (prune.config.sparsity, prune.config.epochs, quantize.config.bits) == (0.9, 2, 3)


def test_settings_are_checked_with_the_method_of_the_recipe():
    (step,) = compose("quantize:weight_only", settings={"quantize": {"fine_tune": "true"}})
    assert isinstance(step.config, QuantizeConfig) and step.config.fine_tune
    with pytest.raises(ValueError, match=r"^step 1 \(quantize\): fine_tune "):
        compose("quantize:static", settings={"quantize": {"fine_tune": "true"}})


def test_a_later_distill_trains_the_compressed_network():
    first, second = compose("prune > distill", settings={"distill": {"width": "0.25", "start": "random"}})
    assert (second.config.width, second.config.start, second.config.student_network) == (0.5, "auto", "")
    assert compose("distill", settings={"distill": {"width": "0.25"}})[0].config.width == 0.25


def test_a_model_that_is_the_teacher_is_one_input():
    model, teacher = object(), object()
    assert models_of("prune", teacher, teacher) == models_of("quantize", teacher, teacher) == {"model": teacher}
    assert models_of("distill", teacher, teacher) == {"teacher": teacher}
    for stage in ("prune", "distill", "quantize"):
        assert models_of(stage, model, teacher) == {"model": model, "teacher": teacher}
    assert models_of("quantize", model, teacher, taught=False) == {"model": model}
    assert models_of("distill", model, teacher, taught=False) == {"model": model, "teacher": teacher}


@pytest.mark.parametrize(
    ("recipe", "rule"),
    [
        ("", "recipe steps must be prune, distill, quantize, but got ''"),
        ("train > shrink", "recipe steps must be prune, distill, quantize, but got 'shrink'"),
        ("train > evaluate", "recipe steps must be prune, distill, quantize, but got 'evaluate'"),
        ("prune > train", "recipe steps must be prune, distill, quantize, but got 'train'"),
        ("train > quantize > prune", "quantize must be the last step of a recipe"),
        ("train >", "recipe steps must be prune, distill, quantize, but got ''"),
        ("prune:l1:0.5:3", "must be stage:method:amount:name=value, but got '3'"),
        ("prune:epochs=3:l1", "must be stage:method:amount:name=value, but got 'l1'"),
        ("prune:l1:method=l2", "must give method once"),
        ("prune:l1 > distill:logits:0.5", "distill may have width only as the first step"),
        ("prune:l1 > distill:start=random", "distill may have start only as the first step"),
    ],
)
def test_bad_recipes_are_refused(recipe, rule):
    with pytest.raises(ValueError, match=rule):
        parse_recipe(recipe)


def test_an_old_field_in_a_recipe_is_refused():
    with pytest.raises(ValueError, match=r"^step 1 \(prune\): max_accuracy_drop has been renamed: use max_valida"):
        compose("prune:l1:max_accuracy_drop=0.1")


@dataclasses.dataclass(frozen=True)
class HalveConfig(Config):
    """A stage of another package."""

    factor: float = option(0.5, "multiplier of every weight", interval="(0, 1]")


HALVE = Stage(
    "halve",
    config=f"{__name__}:HalveConfig",
    run=f"{__name__}:halve",
    summary="halve every weight",
    inputs=(Artifact("dataset", "Dataset"), Artifact("model", "Model")),
    outputs=(Artifact("halved", "Model"),),
)


def test_a_stage_of_another_package_is_a_step(monkeypatch):
    point = importlib.metadata.EntryPoint("halve", f"{__name__}:HALVE", GROUP)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[HalveConfig.__module__])
    monkeypatch.setattr("kondense.entry_points.of_group", lambda group: (point,))
    monkeypatch.setattr("kondense.recipes.STAGES", Stages())
    (_, step) = compose("prune > halve:factor=0.25")
    assert (step.stage, step.config) == ("halve", HalveConfig(factor=0.25))
    assert models_of("halve", "model", "teacher") == {"model": "model"}
    (_, task) = read_plan(resolve(DEFAULT_PROFILE), "none", ["prune > halve"]).candidates["recipe-1"]
    assert (task.stage, task.overrides) == ("halve", {"factor": 0.5})


def test_recipes_need_no_torch():
    program = "import sys, kondense.recipes as r; r.compose('prune > quantize'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
