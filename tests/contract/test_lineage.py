"""No task of a compiled package gets one artifact under two input names, which KFP's metadata store refuses."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kondense.candidates import MOST_RECIPES, STANDARD
from kondense.prune.config import METHODS as PRUNING
from kondense.quantize.methods import METHODS as QUANTIZING
from kondense_pipelines.graphs.candidates import Plan, read_plan
from kondense_pipelines.graphs.compile import NAMES, compile_all
from kondense_pipelines.graphs.parameters import resolve

from tests.support.strict_kfp import toys
from tests.support.strict_kfp.graph import Package, shared_inputs

pytestmark = pytest.mark.usefixtures("quick_yaml")

RECIPES = (
    ("prune", "quantize", "distill"),
    ("prune:magnitude:0.9", "prune:l1:0.5 > prune:magnitude:0.9", "prune > distill > quantize:static"),
    ("distill > prune", "distill > distill", "distill > prune > quantize:qat", "distill:attention:0.5 > quantize"),
    ("quantize:qat", "quantize:weight_only:4:fine_tune=true", "quantize:rate_distortion:fine_tune=true"),
    ("prune > quantize:qat", "prune > quantize:rate_distortion:fine_tune=true", "distill > quantize:qat"),
)
SOME = {"quantized": ("quantized",), "nothing but recipes": ("none",), "two": ("distilled-quantized", "sparse-packed")}


def compiled(directory: Path, plan: Plan, only: tuple[str, ...] = NAMES) -> list[Package]:
    return [Package(path) for path in compile_all(resolve("quick"), directory, only=only, plan=plan)]


def check(packages: list[Package]) -> None:
    for package in packages:
        assert package.containers
        assert shared_inputs(package) == []
        assert shared_inputs(package, cached=True) == []


def test_the_standard_graphs(tmp_path: Path) -> None:
    packages = compiled(tmp_path, Plan())
    assert [package.name for package in packages] == list(NAMES)
    check(packages)


@pytest.mark.parametrize("candidate", STANDARD)
def test_each_candidate_alone(candidate: str, tmp_path: Path) -> None:
    check(compiled(tmp_path, read_plan(resolve("quick"), candidate), only=("compress",)))


@pytest.mark.parametrize("recipes", RECIPES, ids=lambda recipes: recipes[0])
def test_recipes_beside_all_candidates(recipes: tuple[str, ...], tmp_path: Path) -> None:
    check(compiled(tmp_path, read_plan(resolve("quick"), None, recipes), only=("compress",)))


@pytest.mark.parametrize("candidates", SOME.values(), ids=SOME)
def test_recipes_beside_some_candidates(candidates: tuple[str, ...], tmp_path: Path) -> None:
    plan = read_plan(resolve("quick"), ",".join(candidates), ["prune:fpgm > quantize:qat", "quantize:qat"])
    check(compiled(tmp_path, plan))


TUNED = [f"quantize:{method}:fine_tune=true" for method in QUANTIZING.having("fine_tune")]
LAST = st.sampled_from(["", *(f" > quantize:{method}" for method in QUANTIZING), *(f" > {each}" for each in TUNED)])
FIRST = st.sampled_from(["prune", "distill", *(f"prune:{method}" for method in PRUNING)])
RECIPE = st.one_of(
    st.builds(lambda steps, last: " > ".join(steps) + last, st.lists(FIRST, min_size=1, max_size=3), LAST),
    st.sampled_from([f"quantize:{method}" for method in QUANTIZING] + TUNED),
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipes=st.lists(RECIPE, min_size=1, max_size=MOST_RECIPES))
def test_any_recipes(recipes: list[str], tmp_path: Path) -> None:
    check(compiled(tmp_path, read_plan(resolve("quick"), "pruned", recipes), only=("compress",)))


@pytest.mark.parametrize(
    ("pipeline", "found"),
    [
        (toys.right, []),
        (toys.nested, []),
        (toys.twice, ["take gets make.model as model and as teacher"]),
        (toys.nested_twice, ["pair gets make.model as first and as second"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_artifact_that_is_given_twice_is_found(pipeline: Any, found: list[str], tmp_path: Path) -> None:
    assert shared_inputs(Package(toys.compile_toy(pipeline, tmp_path))) == found


def test_what_the_cache_makes_one_artifact_is_found(tmp_path: Path) -> None:
    package = Package(toys.compile_toy(toys.cached_twice, tmp_path))
    assert shared_inputs(package) == []
    assert len(shared_inputs(package, cached=True)) == 1
