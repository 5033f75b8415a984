"""Conditional parameters: what does not count has one value, for the ledger as for the models."""

import json

import numpy as np
import pytest
from kondense.search.conditions import read_conditions
from kondense.search.history import Status
from kondense.search.parameter import Parameter
from kondense.search.space import SearchSpace
from kondense.search.suggesters import load_suggester
from kondense.testing import check_suggester
from kondense.testing.suggesters import run_experiment

PARAMETERS = (
    Parameter("recipe", "categorical", values=("quantize", "prune:l1", "prune:l1 > quantize", "prune-quantize")),
    Parameter("bits", "discrete", values=("8", "4", "2")),
    Parameter("sparsity", "double", 0.2, 0.9),
    Parameter("epochs", "int", 1, 9),
)
TEXT = "bits if recipe has quantize; sparsity if recipe has prune"
SPACE = SearchSpace(PARAMETERS, read_conditions({"conditions": TEXT}, PARAMETERS))
ACTIVE = {"bits": ("quantize", "prune:l1 > quantize"), "sparsity": ("prune:l1", "prune:l1 > quantize")}
FIRST = {"bits": "2", "sparsity": "0.2"}


def result(proposal, rng):
    values = proposal.assignments
    quantized, pruned = (values["recipe"] in ACTIVE[name] for name in ("bits", "sparsity"))
    gain = (0.5 if quantized else 0) + (float(values["sparsity"]) if pruned else 0)
    return Status.SUCCEEDED, 2 - gain + 0.1 * (quantized and values["bits"] == "2")


@pytest.mark.parametrize("algorithm", ["random", "tpe", "hyperband", "bohb"])
def test_what_does_not_count_has_its_first_value(algorithm):
    settings = {"conditions": TEXT} | ({"resource_name": "epochs"} if algorithm in ("hyperband", "bohb") else {})
    space = SPACE if "resource_name" in settings else SPACE.without("epochs")
    trials = run_experiment(load_suggester(algorithm), space, settings, parallel=3, total=60, result=result)
    for name, recipes in ACTIVE.items():
        counts = [trial.assignments[name] for trial in trials if trial.assignments["recipe"] in recipes]
        idle = {trial.assignments[name] for trial in trials if trial.assignments["recipe"] not in recipes}
        assert len(set(counts)) > 1
        assert idle <= {FIRST[name]}
    plain = [trial for trial in trials if trial.assignments["recipe"] == "prune-quantize"]
    assert len({trial.assignments["recipe"] for trial in trials}) == 4
    assert len({json.dumps(trial.assignments) for trial in plain}) == len(plain)


@pytest.mark.parametrize("algorithm", ["tpe", "bohb"])
def test_a_space_with_conditions_conforms(algorithm):
    settings = {"conditions": TEXT} | ({"resource_name": "epochs"} if algorithm == "bohb" else {})
    space = SPACE if algorithm == "bohb" else SPACE.without("epochs")
    suggester = load_suggester(algorithm)

    class Own:
        METHOD = suggester.METHOD
        validate, planned_trials, suggest = suggester.validate, suggester.planned_trials, suggester.suggest

    check_suggester(Own, space=space, settings=settings, trials=16)


def test_rows_of_one_configuration_are_one():
    rng = np.random.default_rng(0)
    rows = SPACE.snap(SPACE.sample(rng, 200))
    assert np.array_equal(SPACE.snap(rows), rows)
    assert np.allclose(SPACE.to_unit(SPACE.from_unit(rows)), rows, atol=1e-9)
    quantized = [each for each in SPACE.from_unit(rows) if each["recipe"] == "quantize"]
    assert {each["sparsity"] for each in quantized} == {"0.2"}
    assert len({tuple(each.values()) for each in quantized}) <= 3 * 9 < len(quantized)  # of bits and epochs


def test_a_configuration_to_start_from_is_that_of_its_recipe():
    settings = {"resource_name": "epochs", "conditions": TEXT, "start": "recipe=quantize,bits=4,sparsity=0.7"}
    ended = run_experiment(load_suggester("hyperband"), SPACE, settings, parallel=1, total=22, result=result)
    expected = {"recipe": "quantize", "bits": "4", "sparsity": "0.2", "epochs": "9"}
    assert expected in [dict(trial.assignments) for trial in ended]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("bits when recipe has quantize", "must be NAME if PARENT is VALUE"),
        ("bits if method has quantize", r"must name parameters of the space \(recipe, .*\), but got 'method'"),
        ("width if recipe has quantize", "must name parameters of the space .* but got 'width'"),
        ("bits if recipe is distill", "recipe must be one of quantize, .*, but got 'distill'"),
        ("bits if recipe has distill", "a value of recipe must have the step 'distill', but none has"),
        ("bits if sparsity is 0.5", "must have parents with a list of values, but sparsity is double"),
        ("bits if recipe has quantize; bits if recipe has prune", "must name a parameter once, but names 'bits' twice"),
        ("bits if recipe has prune; sparsity if bits is 2", "parents that always count, but 'bits' does not"),
        ("epochs if recipe has prune", "must not name the resource, but got 'epochs'"),
        ("bits" + " " * 10**6 + "recipe", "must be NAME if PARENT is VALUE"),  # hours, if each blank may be the first
        ("bits" + " if " * 10**5, "must be NAME if PARENT is VALUE"),
        ("bits if recipe has quantize" + "|x" * 10**5, "a value of recipe must have the step 'x', but none has"),
    ],
)
def test_a_broken_condition_is_refused(text, rule):
    with pytest.raises(ValueError, match=rule) as error:
        read_conditions({"conditions": text, "resource_name": "epochs"}, PARAMETERS)
    assert "\n" not in str(error.value)
