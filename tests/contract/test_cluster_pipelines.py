"""What the compiled packages ask of a cluster, and that search and refresh are compress with more before it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kondense.errors import InputError
from kondense.images import STAGE_IMAGE
from kondense.katib.spec import ExperimentError
from kondense.katib_search.config import read_tolerations
from kondense.profiles import AS_PROFILE, PROFILES
from kondense.search.suggesters import SUGGESTERS
from kondense_pipelines.graphs import search
from kondense_pipelines.graphs.candidates import Plan, read_plan
from kondense_pipelines.graphs.compile import EXPERIMENT, NAMES, compile_all, task_names
from kondense_pipelines.graphs.compress import CANDIDATES, cluster_task_names
from kondense_pipelines.graphs.parameters import CURATED, PROFILE, STEPS, resolve
from kondense_pipelines.graphs.refresh import refresh_task_names
from kondense_pipelines.graphs.resources import Resources, read_resources

pytestmark = pytest.mark.usefixtures("quick_yaml")

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
        self.tasks = {name: task for name, task in every.items() if name not in ("challenge", CANDIDATES)}  # no steps

    @property
    def graphs(self) -> set[str]:
        """The keys of the tasks that are graphs."""
        dags = [self.spec["root"]["dag"], *(each["dag"] for each in self.spec["components"].values() if "dag" in each)]
        tasks = [task for dag in dags for task in dag["tasks"].values()]
        return {key for task in tasks if task["taskInfo"]["name"] in ("challenge", CANDIDATES) for key in task}

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


def trains(package: Package) -> set[str]:
    """Return the executors of tasks that train, or may: the run form chooses how candidates are quantized."""
    stages = {key: each for key, each in package.spec["components"].items() if "executorLabel" in each}
    components = {each["executorLabel"]: key for key, each in stages.items()}
    by_component = {task["componentRef"]["name"]: name for name, task in package.tasks.items()}
    names = {label: by_component[component] for label, component in components.items()}
    training = ("train teacher", "prune", "distill", "quantize")
    return {label for label, name in names.items() if name.startswith(training)}


def test_all_three_are_compiled(packages: dict[str, Package]) -> None:
    assert tuple(packages) == NAMES == ("compress", "search", "refresh")
    assert [each.spec["pipelineInfo"]["name"] for each in packages.values()] == list(NAMES)


def test_the_graphs(packages: dict[str, Package]) -> None:
    assert task_names(packages["compress"].path) == sorted(cluster_task_names(Plan()))
    assert task_names(packages["search"].path) == sorted(("search with Katib", *cluster_task_names(Plan())))
    assert task_names(packages["refresh"].path) == sorted(refresh_task_names(Plan()))


def test_data_prep_of_every_package_keeps_shards_beside_the_checkpoints(packages: dict[str, Package]) -> None:
    for package in packages.values():
        environments = {
            label: {each["name"]: each["value"] for each in container["env"]}
            for label, container in package.executors.items()
        }
        places = {label: found.get("KONDENSE_SHARDS") for label, found in environments.items()}
        assert {label: place for label, place in places.items() if place} == {
            "exec-data-prep": "minio://mlpipeline/kondense/shards"
        }
        assert environments["exec-data-prep"]["KONDENSE_CHECKPOINTS"] == "minio://mlpipeline/kondense/checkpoints"
    with pytest.raises(InputError, match="shards must be s3://bucket/prefix"):
        Resources(shards="/data")
    assert Resources(shards="").shards == ""


def test_the_forms_are_compresss_and_their_own(packages: dict[str, Package]) -> None:
    shared = {name: {*each.parameters} & {*CURATED} for name, each in packages.items()}
    assert shared["compress"] == {*CURATED}
    assert shared["search"] == {*CURATED} - {*search.DECIDED}
    assert shared["refresh"] == {*CURATED} - {"network_import_uri"}
    own = {name: {*each.parameters} - {*CURATED, PROFILE} for name, each in packages.items()}
    assert own["refresh"] == {"refresh_always"}
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
        assert given[name] == {"taskOutputParameter": {"outputParameterKey": name, "producerTask": "katib-search"}}
    assert given["epochs"] == {"runtimeValue": {"constant": AS_PROFILE}}
    tune = tasks["search with Katib"]["inputs"]["parameters"]
    assert tune["network"] == {"componentInputParameter": "network"}
    assert tune["run_id"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert tune["image"] == {"runtimeValue": {"constant": STAGE_IMAGE}}


def test_the_packaged_experiment_is_the_manifest() -> None:
    manifest = ROOT / "manifests" / "experiments" / "bohb.yaml"
    assert EXPERIMENT.read_bytes() == manifest.read_bytes()


def test_the_experiment_is_whole_and_no_template_of_argo(packages: dict[str, Package]) -> None:
    constant = packages["search"].tasks["search with Katib"]["inputs"]["parameters"]["experiment"]
    experiment = constant["runtimeValue"]["constant"]  # a structure, not a string in a string
    assert experiment == yaml.safe_load(EXPERIMENT.read_text())
    space = packages["search"].parameters["search_space"]
    assert (space["parameterType"], space["defaultValue"]) == ("LIST", experiment["spec"]["parameters"])
    for each in ("search_settings", "trial_resources"):  # for which the form has an editor
        assert packages["search"].parameters[each]["parameterType"] == "STRUCT"
    assert "{{" not in json.dumps(experiment)  # begins a placeholder


def test_another_experiment_can_be_compiled_in(tmp_path: Path) -> None:
    tpe = ROOT / "manifests" / "experiments" / "tpe.yaml"
    (path,) = compile_all(resolve("quick"), tmp_path, only=("search",), experiment=tpe)
    assert Package(path).parameters["search_algorithm"]["defaultValue"] == "tpe"
    (tmp_path / "bad.yaml").write_text(EXPERIMENT.read_text().replace("maximize", "most"))
    with pytest.raises(ExperimentError, match="objective"):
        compile_all(resolve("quick"), tmp_path / "out", only=("search",), experiment=tmp_path / "bad.yaml")
    assert not (tmp_path / "out").exists()
    tree = ROOT / "manifests" / "experiments" / "decision-tree.yaml"
    with pytest.raises(ValueError, match="trials of the Experiment must run python3 -m kondense.cli trial"):
        compile_all(resolve("quick"), tmp_path / "out", only=("search",), experiment=tree)


def test_steps_with_effects_are_never_taken_from_the_cache(packages: dict[str, Package]) -> None:
    fresh = {
        "compress": {"publish", "verdict"},
        "search": {"search with Katib", "publish", "verdict"},
        "refresh": {"data prep", "champion", "publish", "verdict"},
    }
    for name, package in packages.items():
        cached = {task for task, each in package.tasks.items() if each["cachingOptions"].get("enableCache")}
        assert {*package.tasks} - cached == fresh[name]


def test_a_package_without_gpus_asks_for_none(packages: dict[str, Package]) -> None:
    for package in packages.values():
        for name, container in package.executors.items():
            assert "accelerator" not in container.get("resources", {}), name
            assert not {"tolerations", "nodeSelector"} & {*package.kubernetes[name]}
    assert packages["search"].parameters["trial_resources"]["defaultValue"]["gpus"] == 0


def test_a_package_with_gpus_gives_them_to_the_steps_that_train(gpu_packages: dict[str, Package]) -> None:
    for package in gpu_packages.values():
        with_gpu = {name for name, each in package.executors.items() if "accelerator" in each.get("resources", {})}
        assert with_gpu == trains(package)
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
    trial = gpu_packages["search"].parameters["trial_resources"]["defaultValue"]
    assert (trial["gpus"], trial["node_selector"]) == (2, {"pool": "gpu"})
    assert read_tolerations(",".join(trial["tolerations"])) == list(GPU.tolerations)


def test_every_step_reaches_the_store_without_a_credential_in_the_package(gpu_packages: dict[str, Package]) -> None:
    for package in gpu_packages.values():
        assert set(package.kubernetes) == set(package.executors)
        retried = {name: task.get("retryPolicy", {}).get("maxRetryCount") for name, task in package.tasks.items()}
        assert retried.pop("verdict") is None  # it fails on purpose
        assert {*retried.values()} == {5}
        assert {"retryPolicy"}.isdisjoint(package.graphs)  # a graph that is tried again would repeat all its steps
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
    [
        ({"gpus": -1}, "gpus must be in"),
        ({"retries": 101}, "retries"),
        ({"memory_limit": "8 GB"}, "memory_limit"),
        ({"memory_request": "0.5Gi"}, "memory_request must be a whole number of bytes"),
        ({"cpu_request": "2Gi"}, "cpu_request must be a number of processors"),
    ],
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
    [
        ("pack_weights.method=qat", True),
        ("pack_weights.method=weight_only", False),
        ("pack_weights.fine_tune=true", True),
    ],
)
def test_quantization_gets_a_gpu_where_it_trains(setting: str, trains: bool, tmp_path: Path) -> None:
    configs = resolve("quick", None, [setting])
    plan = read_plan(configs, "sparse-packed")
    (path,) = compile_all(configs, tmp_path, only=("compress",), resources=GPU, plan=plan)
    package = Package(path)
    (label,) = (each for each in package.executors if each.startswith("exec-quantize"))
    assert ("accelerator" in package.executors[label].get("resources", {})) == trains


MOST_NODES = 20  # of a graph that one reads without scrolling: tasks and their artifacts, as KFP's page draws them
MOST_FIELDS = {"compress": 14, "search": 19, "refresh": 14}


def nodes(spec: dict[str, Any]) -> int:
    """Count what the UI draws of the root: each task, and each artifact that its component puts out."""
    components = [spec["components"][task["componentRef"]["name"]] for task in spec["root"]["dag"]["tasks"].values()]
    return len(components) + sum(len(each.get("outputDefinitions", {}).get("artifacts", {})) for each in components)


def test_a_graph_is_read_at_one_look_and_a_form_filled_in(packages: dict[str, Package]) -> None:
    for name, package in packages.items():
        assert nodes(package.spec) <= MOST_NODES, name
        assert len(package.parameters) <= MOST_FIELDS[name], name


def test_recipes_do_not_widen_the_root(tmp_path: Path) -> None:
    configs = resolve("quick")
    plan = read_plan(configs, None, ["prune:l1:0.5 > distill", "quantize:qat", "distill:logits:0.3", "prune:nm"])
    (path,) = compile_all(configs, tmp_path, only=("compress",), plan=plan)
    assert nodes(Package(path).spec) <= MOST_NODES


def test_the_candidates_hand_on_report_and_choice(packages: dict[str, Package]) -> None:
    for package in packages.values():
        graph = package.spec["components"]["comp-candidates"]
        assert set(graph["outputDefinitions"]["artifacts"]) == {"report", "chosen", "html"}
        outputs = graph["dag"]["outputs"]["artifacts"].values()
        assert {each["artifactSelectors"][0]["producerSubtask"] for each in outputs} == {"report"}
        assert package.tasks["publish"]["inputs"]["artifacts"]["chosen"] == {
            "taskOutputArtifact": {"producerTask": "candidates", "outputArtifactKey": "chosen"}
        }


def test_a_form_offers_what_the_configs_take(packages: dict[str, Package]) -> None:
    for package in packages.values():
        for name, parameter in package.parameters.items():
            if name in CURATED:
                step, field = CURATED[name][0]
                expected = list(STEPS[step].config.__dataclass_fields__[field].metadata["choices"])
            else:
                expected = {PROFILE: [*PROFILES], "search_algorithm": [*SUGGESTERS]}.get(name, [])
            assert parameter.get("literals", []) == expected, name
            if expected:
                assert parameter["defaultValue"] in expected


@pytest.mark.parametrize(("version", "known"), [("2.14", False), ("2.15.2", False), ("2.16.0", True), ("3.0", True)])
def test_an_older_server_gets_what_it_knows(version: str, known: bool, tmp_path: Path) -> None:
    resources = Resources(kfp_version=version)
    (path,) = compile_all(resolve("quick"), tmp_path, only=("compress",), resources=resources)
    assert ("literals" in path.read_text()) == known
    assert ("securityContext" in path.read_text()) == known


@pytest.mark.parametrize("version", ["new", "1.8", "2.13.9", "2.17x", "2", ""])
def test_a_server_that_is_none_of_ours_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match=f"such as 2.17, 2.14 or newer, but got '{version}'"):
        Resources(kfp_version=version)


def test_every_step_runs_as_the_user_of_its_image(packages: dict[str, Package]) -> None:
    for package in packages.values():
        for name in package.executors:
            context = package.kubernetes[name]["securityContext"]
            assert (context["runAsUser"], context["runAsGroup"], context["runAsNonRoot"]) == ("10001", "10001", True)


def test_the_description_tells_the_parameters_and_what_the_package_makes(
    packages: dict[str, Package], gpu_packages: dict[str, Package]
) -> None:
    for name, package in packages.items():
        text = package.spec["pipelineInfo"]["description"]
        rows = [line for line in text.splitlines() if line.startswith("- ")]
        assert [row.split()[1] for row in rows] == sorted(package.parameters)
        assert all(package.parameters[row.split()[1]]["description"] in row for row in rows)
        assert "sparse-packed" in text and "asks for no GPU" in text and "kondense compile --set" in text
        assert "asks for 2 x nvidia.com/gpu" in gpu_packages[name].spec["pipelineInfo"]["description"]
        assert len(text) < 8000


def test_what_the_form_leaves_out_can_be_compiled_in(tmp_path: Path) -> None:
    settings = [
        "katib_search.max_failed_trials=5",
        "katib_search.namespace=team",
        "publish.store_uri=minio://team/models",
    ]
    (path,) = compile_all(resolve("quick", {}, settings), tmp_path, only=("search",))
    tasks = Package(path).tasks
    tune = tasks["search with Katib"]["inputs"]["parameters"]
    assert (tune["max_failed_trials"]["runtimeValue"], tune["namespace"]["runtimeValue"]) == (
        *({"constant": 5}, {"constant": "team"}),
    )
    assert tasks["publish"]["inputs"]["parameters"]["store_uri"]["runtimeValue"]["constant"] == "minio://team/models"


def test_several_nodes_train_the_teacher_as_a_train_job(tmp_path: Path) -> None:
    settings = ["train_job.nodes=3", "train_job.runtime=mine", "train.batch_size=96"]
    configs = resolve("quick", {}, settings)
    (path,) = compile_all(configs, tmp_path, only=("refresh",), resources=GPU, settings=settings)
    package = Package(path)
    task = package.tasks["train teacher"]
    assert task["componentRef"]["name"] == "comp-train-job"
    assert "comp-train" not in package.spec["components"]
    given = {name: each.get("runtimeValue", {}).get("constant") for name, each in task["inputs"]["parameters"].items()}
    expected = {"nodes": 3, "gpus": 2, "cpu": "8", "memory": "32Gi", "secret": GPU.secret, "batch_size": 96}
    expected |= {"runtime": "mine", "step": "train", "run_id": "{{$.pipeline_job_uuid}}"}
    assert {name: given[name] for name in expected} == expected
    assert not task.get("cachingOptions", {}).get("enableCache")
    assert "resources" not in package.executors["exec-train-job"]  # the GPUs are the nodes'


def test_nodes_are_checked_when_a_package_is_compiled(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^train_job: compile must be false with 2 processes, but got true\.$"):
        resolve("quick", {}, ["train_job.nodes=2", "train.compile=true"])
    with pytest.raises(InputError, match=r"^--set cannot change train_job\.gpus"):
        resolve("quick", {}, ["train_job.gpus=2"])
    configs = resolve("quick", {}, ["train_job.nodes=2"])
    with pytest.raises(InputError, match=r"^train_job\.nodes must be 1 in an Argo Workflow, but got 2\.$"):
        compile_all(configs, tmp_path, only=("compress",), argo_bucket="bucket")


def test_an_endpoint_with_a_scheme_says_whether_it_is_secure() -> None:
    texts = ("HTTPS://s3.example:443/", "http://minio:9000", "minio:9000")
    read = [read_resources([f"endpoint={text}"]) for text in texts]
    assert [(each.endpoint, each.secure) for each in read] == [
        ("s3.example:443", True),
        ("minio:9000", False),
        ("minio:9000", False),
    ]
    with pytest.raises(ValueError, match="endpoint must be host:port, or https:// where secure is true"):
        read_resources(["endpoint=http://minio:9000", "secure=true"])
    for refused in ("s3://bucket", "http://user:word@minio:9000", "minio:9000/bucket", "minio:99999", "'minio'"):
        with pytest.raises(ValueError, match="endpoint must be host:port, http://host:port or https://host:port, but"):
            read_resources([f"endpoint={refused}"])
