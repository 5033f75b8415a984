"""Plans: which candidates a run makes, and what is refused."""

from pathlib import Path

import pytest
from kondense.candidates import STANDARD
from kondense.recipes import SAME_NETWORK
from kondense_pipelines.cli.app import app
from kondense_pipelines.graphs.candidates import Plan, read_plan
from kondense_pipelines.graphs.parameters import resolve
from typer.testing import CliRunner


def test_the_standard_plan_shares_tasks_and_measures_a_candidate_once_it_is_made() -> None:
    names = Plan().task_names()
    assert names[:3] == ("evaluate teacher", "quantize", "evaluate quantized")
    assert len(names) == len(set(names))
    assert names.count("prune") == 1
    assert names.index("prune") < names.index("evaluate pruned") < names.index("quantize pruned")


def test_a_recipe_takes_the_settings_of_the_step_with_its_method() -> None:
    configs = resolve("quick", None, ["prune_weights.epochs=3", "prune.epochs=7"])
    plan = read_plan(configs, "none", ["prune:magnitude:0.98 > quantize:weight_only:4", "wide=prune:l1 > distill"])
    assert plan.recipes == ("recipe-1", "wide")
    first, second = plan.candidates["recipe-1"]
    assert (first.step, dict(first.overrides)) == ("prune_weights", {"method": "magnitude", "sparsity": 0.98})
    assert (second.step, dict(second.overrides)) == ("pack_weights", {"method": "weight_only", "bits": 4})
    assert [(task.name, task.step) for task in plan.candidates["wide"]] == [
        ("prune 1 of wide", "prune"),
        ("distill 2 of wide", "distill"),
    ]


def test_a_later_distill_has_no_new_student_whatever_the_step_is_set_to() -> None:
    configs = resolve("quick", None, ["distill.width=0.25", "distill.start=random"])
    plan = read_plan(configs, "none", ["distill > prune:l1", "prune:l1 > distill"])
    assert "width" not in plan.candidates["recipe-1"][0].overrides
    overrides = plan.candidates["recipe-2"][1].overrides
    assert {name: overrides[name] for name in ("width", "start", "student_network")} == {
        "width": 0.5, "start": "auto", "student_network": ""
    }  # fmt: skip


@pytest.mark.parametrize(
    ("candidates", "recipes", "rule"),
    [
        ("pruned,small", [], "--candidates must be one of .*, but got 'small'"),
        (None, ["prune"] * 5, "at most 4 times, but got 5"),
        (None, ["pruned=prune"], "a name that no other candidate has, but got 'pruned'"),
        (None, ["a=prune", "a=distill"], "a name that no other candidate has, but got 'a'"),
        (None, ["prune:l1:2"], r"recipe recipe-1: step 1 \(prune\): sparsity must be in \[0, 1\), but got 2.0"),
        (None, ["quantize > prune"], "quantize must be the last step of a recipe"),
        (None, ["prune:l1 > distill:logits:0.25"], "distill may have width only as the first step"),
    ],
)
def test_what_cannot_be_made_is_refused(candidates: str | None, recipes: list[str], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        read_plan(resolve("quick"), candidates, recipes)


def test_no_candidates_but_recipes() -> None:
    assert set(read_plan(resolve("quick"), None, ["prune"]).candidates) == {*STANDARD, "recipe-1"}
    assert set(read_plan(resolve("quick"), "none", ["prune"]).candidates) == {"recipe-1"}


@pytest.mark.parametrize(("arguments", "told"), [((), True), (("--recipe=prune",), False)])
def test_a_run_without_candidates_says_what_it_does_before_any_work(
    tmp_path: Path, arguments: tuple[str, ...], told: bool
) -> None:
    (tmp_path / "file").touch()
    output = str(tmp_path / "file" / "run")  # where no run can be
    result = CliRunner().invoke(app, ["run", "--candidates=none", f"--output={output}", *arguments])
    assert result.exit_code == 2
    expected = "warning: there are no candidates: the teacher is measured and published as it is;"
    assert result.stderr.startswith(expected) is told


def test_the_standard_candidates_share_their_first_tasks_and_name_the_others_by_what_they_follow() -> None:
    tasks = {name: [task.name for task in tasks] for name, tasks in Plan().candidates.items()}
    assert tasks == {
        "quantized": ["quantize"],
        "pruned": ["prune"],
        "pruned-quantized": ["prune", "quantize pruned"],
        "distilled": ["distill"],
        "distilled-quantized": ["distill", "quantize distilled"],
        "pruned-distilled-quantized": ["prune", "distill pruned", "quantize pruned-distilled"],
        "sparse-packed": ["prune weights", "pack weights"],
    }
    (_, again, _) = Plan().candidates["pruned-distilled-quantized"]
    assert again.overrides == SAME_NETWORK  # it trains the pruned network, not a new student
    assert not any(
        task.overrides for name in ("pruned", "distilled", "sparse-packed") for task in Plan().candidates[name]
    )
