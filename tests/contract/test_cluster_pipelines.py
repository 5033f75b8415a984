"""What the compiled packages ask of a cluster, and that search and refresh are compress with more before it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.images import STAGE_IMAGE
from components.tune.config import read_tolerations
from pipelines import search
from pipelines.compile import EXPERIMENT, NAMES, compile_all, task_names
from pipelines.compress import task_names as compress_tasks
from pipelines.experiment.spec import ExperimentError
from pipelines.parameters import CURATED, resolve
from pipelines.plan import Plan
from pipelines.refresh import refresh_task_names
from pipelines.resources import TRAINING, Resources, read_resources

ROOT = Path(__file__).parents[2]
GPU = Resources(
    gpus=2,
    node_selector={"pool": "gpu"},
    tolerations=({"key": "team", "operator": "Equal", "value": "vision", "effect": "NoSchedule"},),
    shared_memory="4Gi",
    cpu_limit="8",
    memory_limit="32Gi",
    retries=5,
    endpoint="s3.example:443",
    secure=True,
)


class Package:
    """A compiled package: its spec, its tasks by display name, and what it asks of Kubernetes by executor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec, platform = yaml.load_all(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.executors = {name: each["container"] for name, each in self.spec["deploymentSpec"]["executors"].items()}
        self.kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        dags = [self.spec["root"]["dag"], *(each["dag"] for each in self.spec["components"].values() if "dag" in each)]
        every = {task["taskInfo"]["name"]: task for dag in dags for task in dag["tasks"].values()}
        self.tasks = {name: task for name, task in every.items() if name != "challenge"}  # a condition, no step

    @property
    def parameters(self) -> dict[str, Any]:
        return self.spec["root"]["inputDefinitions"]["parameters"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    paths = compile_all(resolve("quick", {}, ["train.momentum=0.5"]), tmp_path_factory.mktemp("cpu"))
    return {path.stem: Package(path) for path in paths}


@pytest.fixture(scope="module")
def gpu_packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    paths = compile_all(resolve("quick"), tmp_path_factory.mktemp("gpu"), resources=GPU)
    return {path.stem: Package(path) for path in paths}


def trains(executor: str) -> bool:
    return executor.removeprefix("exec-").rstrip("-0123456789") in TRAINING


def test_all_three_are_compiled(packages: dict[str, Package]) -> None:
    assert tuple(packages) == NAMES == ("compress", "search", "refresh")
    assert [each.spec["pipelineInfo"]["name"] for each in packages.values()] == list(NAMES)


def test_the_graphs(packages: dict[str, Package]) -> None:
    assert task_names(packages["compress"].path) == sorted(compress_tasks(Plan()))
    assert task_names(packages["search"].path) == sorted(("search with Katib", *compress_tasks(Plan())))
    assert task_names(packages["refresh"].path) == sorted(refresh_task_names(Plan()))


def test_the_forms_are_compresss_and_their_own(packages: dict[str, Package]) -> None:
    shared = {name: {*each.parameters} & {*CURATED} for name, each in packages.items()}
    assert shared["compress"] == {*CURATED}
    assert shared["search"] == {*CURATED} - {*search.DECIDED}
    assert shared["refresh"] == {*CURATED} - {"import_uri"}
    own = {name: {*each.parameters} - {*CURATED} for name, each in packages.items()}
    assert own["refresh"] == {"always"}
    assert all(name.startswith(("search_", "trial_")) for name in own["search"])
    compress = packages["compress"].parameters
    for package in packages.values():
        for name, parameter in package.parameters.items():
            assert parameter["description"], name
            assert "defaultValue" in parameter, name
            assert compress.get(name, parameter) == parameter


def test_the_search_hands_its_best_to_the_teachers_training(packages: dict[str, Package]) -> None:
    tasks = packages["search"].tasks
    given = tasks["train teacher"]["inputs"]["parameters"]
    for name in search.TUNED:
        assert given[name] == {"taskOutputParameter": {"outputParameterKey": name, "producerTask": "tune"}}
    assert given["epochs"] == {"componentInputParameter": "train_epochs"}
    tune = tasks["search with Katib"]["inputs"]["parameters"]
    assert tune["network"] == {"componentInputParameter": "network"}
    assert tune["run_id"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert tune["image"] == {"runtimeValue": {"constant": STAGE_IMAGE}}


def test_the_packaged_experiment_is_the_manifest() -> None:
    manifest = ROOT / "manifests" / "experiments" / "bohb.yaml"
    assert EXPERIMENT.read_bytes() == manifest.read_bytes()


def test_the_experiment_is_whole_and_no_template_of_argo(packages: dict[str, Package]) -> None:
    constant = packages["search"].tasks["search with Katib"]["inputs"]["parameters"]["experiment"]
    text = constant["runtimeValue"]["constant"]
    assert json.loads(text) == yaml.safe_load(EXPERIMENT.read_text())
    space = packages["search"].parameters["search_space"]["defaultValue"]
    assert json.loads(space) == json.loads(text)["spec"]["parameters"]
    for each in (text, space):  # {{ begins a placeholder; a form's line keeps no line breaks
        assert "{{" not in each and "\n" not in each


def test_another_experiment_can_be_compiled_in(tmp_path: Path) -> None:
    tpe = ROOT / "manifests" / "experiments" / "tpe.yaml"
    (path,) = compile_all(resolve("quick"), tmp_path, only=("search",), experiment=tpe)
    assert Package(path).parameters["search_algorithm"]["defaultValue"] == "tpe"
    (tmp_path / "bad.yaml").write_text(EXPERIMENT.read_text().replace("maximize", "most"))
    with pytest.raises(ExperimentError, match="objective"):
        compile_all(resolve("quick"), tmp_path / "out", only=("search",), experiment=tmp_path / "bad.yaml")
    assert not (tmp_path / "out").exists()


def test_steps_with_effects_are_never_taken_from_the_cache(packages: dict[str, Package]) -> None:
    fresh = {
        "compress": {"publish"},
        "search": {"search with Katib", "publish"},
        "refresh": {"data prep", "champion", "publish"},
    }
    for name, package in packages.items():
        cached = {task for task, each in package.tasks.items() if each["cachingOptions"].get("enableCache")}
        assert {*package.tasks} - cached == fresh[name]


def test_a_package_without_gpus_asks_for_none(packages: dict[str, Package]) -> None:
    for package in packages.values():
        for name, container in package.executors.items():
            assert "accelerator" not in container.get("resources", {}), name
            assert not {"tolerations", "nodeSelector"} & {*package.kubernetes[name]}
    assert packages["search"].parameters["trial_gpus"]["defaultValue"] == 0


def test_a_package_with_gpus_gives_them_to_the_steps_that_train(gpu_packages: dict[str, Package]) -> None:
    for package in gpu_packages.values():
        with_gpu = {name for name, each in package.executors.items() if "accelerator" in each.get("resources", {})}
        assert with_gpu == set(filter(trains, package.executors))
        assert with_gpu
        for name in with_gpu:
            resources, kubernetes = package.executors[name]["resources"], package.kubernetes[name]
            asked = resources["accelerator"]
            assert (asked["resourceType"], asked["resourceCount"]) == ("nvidia.com/gpu", "2")
            assert (resources["resourceMemoryLimit"], resources["resourceCpuLimit"]) == ("32Gi", "8")
            assert kubernetes["nodeSelector"]["labels"] == {"pool": "gpu"}
            assert [each["key"] for each in kubernetes["tolerations"]] == ["team", "nvidia.com/gpu"]
            (memory,) = kubernetes["emptyDirMounts"]
            assert (memory["mountPath"], memory["medium"], memory["sizeLimit"]) == ("/dev/shm", "Memory", "4Gi")
    form = gpu_packages["search"].parameters
    assert (form["trial_gpus"]["defaultValue"], form["trial_node_selector"]["defaultValue"]) == (2, "pool=gpu")
    assert read_tolerations(form["trial_tolerations"]["defaultValue"]) == list(GPU.tolerations)


def test_every_step_reaches_the_store_without_a_credential_in_the_package(gpu_packages: dict[str, Package]) -> None:
    for package in gpu_packages.values():
        assert set(package.kubernetes) == set(package.executors)
        assert {task["retryPolicy"]["maxRetryCount"] for task in package.tasks.values()} == {5}
        for name, container in package.executors.items():
            variables = {each["name"]: each["value"] for each in container["env"]}
            assert (variables["MINIO_ENDPOINT"], variables["MINIO_SECURE"]) == ("s3.example:443", "true")
            assert not any("KEY" in each for each in variables)
            (secret,) = package.kubernetes[name]["secretAsEnv"]
            assert secret["secretName"] == "mlpipeline-minio-artifact"
            assert secret["optional"]  # without it the step starts and says so, instead of waiting for ever


def test_kubernetes_objects_of_all_three(tmp_path: Path) -> None:
    written = compile_all(resolve("quick"), tmp_path, kubernetes=True, namespace="team")
    assert len(written) == 2 * len(NAMES)
    for path in written[1::2]:
        pipeline, version = yaml.safe_load_all(path.read_text())
        assert pipeline["metadata"]["name"] == version["spec"]["pipelineName"] == path.name.partition(".")[0]
        assert pipeline["metadata"]["namespace"] == "team"
        assert pipeline["spec"]["displayName"]


@pytest.mark.parametrize(
    ("change", "text"),
    [({"gpus": -1}, "gpus must be in"), ({"retries": 101}, "retries"), ({"memory_limit": "8 GB"}, "memory_limit")],
)
def test_resources_out_of_range(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(Resources(), **change)


def test_resources_from_the_command_line() -> None:
    texts = ["gpus=1", "node_selector=pool=gpu,zone=a", "tolerations=team=vision:NoSchedule,spot", "secure=true"]
    found = read_resources(texts)
    assert (found.gpus, found.secure, found.node_selector) == (1, True, {"pool": "gpu", "zone": "a"})
    assert [each["key"] for each in found.tolerations] == ["team", "spot"]
    assert read_resources(()) == Resources()
    for text, message in (
        ("gpus", "must be name=value"),
        ("gpu=1", "must be one of accelerator, "),
        ("gpus=many", "gpus must be int"),
        ("node_selector=gpu", "node_selector must be key=value"),
    ):
        with pytest.raises(ValueError, match=message):
            read_resources([text])


@pytest.mark.parametrize(
    ("setting", "trains"),
    [("quantize.method=qat", True), ("quantize.method=static", False), ("pack.fine_tune=true", True)],
)
def test_quantization_gets_a_gpu_where_it_trains(setting: str, trains: bool, tmp_path: Path) -> None:
    (path,) = compile_all(resolve("quick", None, [setting]), tmp_path, only=("compress",), resources=GPU)
    executors = yaml.safe_load(path.read_text().split("---")[0])["deploymentSpec"]["executors"]
    found = [name for name, each in executors.items() if "accelerator" in each["container"].get("resources", {})]
    assert any(name.startswith("exec-quantize") for name in found) == trains
