"""A run's parameters held against what a package itself fixes, through graphs within graphs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl
from kondense.data_prep.config import DataPrepConfig
from kondense.stages import STAGES
from kondense_pipelines.cluster.checks import check_parameters
from kondense_pipelines.cluster.package import Package, read_package
from kondense_pipelines.graphs.compile import NAMES, compile_all
from kondense_pipelines.graphs.parameters import resolve


@dsl.component(base_image="python", install_kfp_package=False, packages_to_install=[])
def prune(
    method: str = "magnitude", sparsity: float = 0.5, epochs: int = 1, profile: str = "quick", step: str = ""
) -> str:
    """Stand for the stage's component: the name is what counts."""
    return method


@dsl.component(base_image="python", install_kfp_package=False, packages_to_install=[])
def other(method: str):
    """Do what no Config knows."""


@dsl.pipeline(name="inner")
def inner(method: str, sparsity: float = 0.25):
    prune(method=method, sparsity=sparsity, epochs=-1, profile="quick", step="prune")


@dsl.pipeline(name="outer")
def outer(how: str = "magnitude", sparsity: float = 0.5, least: float = 0.1):
    inner(method=how, sparsity=sparsity)
    decided = prune(sparsity=least, epochs=2)
    prune(method=decided.output, sparsity=least, epochs=2).set_display_name("decided later")
    other(method=f"no {how}")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    path = tmp_path_factory.mktemp("package") / "outer.yaml"
    compiler.Compiler().compile(outer, str(path))
    return read_package(path)


@pytest.fixture(scope="module")
def searching(tmp_path_factory: pytest.TempPathFactory) -> Package:
    (file,) = compile_all(resolve("quick"), tmp_path_factory.mktemp("searching"), only=("search",))
    return read_package(file)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"how": "l3"}, r"prune: method must be one of .*, but got 'l3'\. \(how gives method\)"),
        ({"sparsity": 1.5}, r"prune: sparsity must be in \[.*, but got 1\.5\.$"),
        ({"least": -0.5}, r"prune: sparsity must be in .* \(least gives sparsity\)"),
        ({"least": "0.5"}, "least must be int or float, but got '0.5'"),
        ({"sparsity": True}, "sparsity must be int or float, but got True"),
    ],
)
def test_what_a_step_would_refuse(package: Package, given: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_parameters(package, given)
    assert "\n" not in str(caught.value)


def test_what_a_step_would_take(package: Package) -> None:
    for given in ({}, {"how": "fpgm"}, {"sparsity": 0}, {"least": 0.9}):
        check_parameters(package, given)


def test_the_inputs_of_every_task(package: Package) -> None:
    tasks = {task.title: task for task in package.tasks({"how": "fpgm"})}
    assert {name: each.value for name, each in tasks["prune"].known.items()} in (
        {"method": "fpgm", "sparsity": 0.5, "epochs": -1, "profile": "quick", "step": "prune"},
        {"method": "magnitude", "sparsity": 0.1, "epochs": 2, "profile": "quick", "step": ""},
    )
    assert "method" not in tasks["decided later"].known
    assert "method" in tasks["decided later"].declared
    assert "method" not in tasks["other"].known  # a text that is put together when the task starts


def test_rules_between_fields_wait_for_values_that_a_task_decides(tmp_path: Path) -> None:
    @dsl.component(base_image="python", install_kfp_package=False, packages_to_install=[])
    def data_prep(dataset_name: str, source: str, limit: int):
        """Stand for the stage's component."""

    @dsl.component(base_image="python", install_kfp_package=False, packages_to_install=[])
    def finds() -> str:
        return ""

    @dsl.pipeline(name="toy")
    def toy(dataset: str = "digits", limit: int = 0):
        data_prep(dataset_name=dataset, source=finds().output, limit=limit)

    path = tmp_path / "toy.yaml"
    compiler.Compiler().compile(toy, str(path))
    with pytest.raises(ValueError, match="source must be the folder"):
        DataPrepConfig(dataset_name="folder")
    check_parameters(read_package(path), {"dataset": "folder"})
    with pytest.raises(ValueError, match="limit must be in"):
        check_parameters(read_package(path), {"limit": -1})


def test_what_a_package_was_compiled_with_counts(tmp_path: Path) -> None:
    (plain,) = compile_all(resolve("quick"), tmp_path / "plain", only=("compress",))
    with pytest.raises(ValueError, match="source must be the folder"):
        check_parameters(read_package(plain), {"dataset": "folder"})
    configs = resolve("quick", settings=["data_prep.source=minio://bucket/images", "data_prep.dataset_name=folder"])
    (fixed,) = compile_all(configs, tmp_path / "fixed", only=("compress",))
    check_parameters(read_package(fixed), {})
    check_parameters(read_package(plain), {"train_epochs": -1})
    with pytest.raises(ValueError, match=r"got 0\. -1 is the number of the profile\. \(train_epochs gives epochs\)$"):
        check_parameters(read_package(plain), {"train_epochs": 0})
    with pytest.raises(ValueError, match="^report_max_accuracy_drop has been renamed: use report_max_drop"):
        check_parameters(read_package(plain), {"report_max_accuracy_drop": 0.1})
    with pytest.raises(ValueError, match="source must be empty for digits"):
        check_parameters(read_package(fixed), {"dataset": "digits"})


def test_every_step_of_the_pipelines_is_checked(tmp_path: Path) -> None:
    found = set()
    nodes = resolve("quick", settings=["train_job.nodes=2"])
    files = [*compile_all(resolve("quick"), tmp_path), *compile_all(nodes, tmp_path / "nodes", only=("compress",))]
    for file in files:
        package = read_package(file)
        found |= {task.function for task in package.tasks({})}
        for profile in ("quick", "full"):
            check_parameters(package, {"profile": profile})
    assert found == set(STAGES.components())
    assert len(NAMES) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trial_resources": {"gpu": 1}}, r"resources must be of gpus, .* but got 'gpu'\. \(trial_resources gives"),
        ({"trial_resources": {"cpu": "4x"}}, "cpu must be a Kubernetes quantity"),
        ({"search_settings": {"eta": "x"}}, "setting eta must be a whole number, but got 'x'"),
        ({"search_space": [{"name": "lr"}]}, r"feasibleSpace, but 'lr' has none"),
        ({"search_algorithm": "best"}, "search_algorithm must be one of bayesianoptimization, bohb, "),
        ({"search_max_trials": -1}, r"max_trials must be in .* \(search_max_trials gives max_trials\)"),
    ],
)
def test_what_a_search_would_refuse(searching: Package, given: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_parameters(searching, given)


def test_an_empty_list_does_not_stand_for_the_default_unseen(searching: Package) -> None:
    with pytest.raises(ValueError, match=r"search_space must have an item or more, but got \[\]"):
        check_parameters(searching, {"search_space": []})
    check_parameters(searching, {})
