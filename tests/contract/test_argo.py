"""The Argo Workflow says what the compiled pipeline says: every task, dependency, artifact and parameter once."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hera.workflows.models import Workflow
from kfp import compiler
from kondense.cli import make_parser
from kondense.config import from_flags
from kondense.stages import STAGES
from kondense_pipelines.cli.app import app
from kondense_pipelines.graphs.argo import display_name, make_workflow
from kondense_pipelines.graphs.compile import compile_all
from kondense_pipelines.graphs.compress import make_compress
from kondense_pipelines.graphs.parameters import resolve, split
from kondense_pipelines.graphs.resources import Resources
from typer.testing import CliRunner

pytestmark = pytest.mark.usefixtures("quick_yaml")

STORE = ("endpoint=s3.example:443", "secure=true", "secret=own-keys", "memory_limit=4Gi", "node_selector=pool=a")
KFP_ONLY = {"metrics", "classification", "html"}  # what KFP's UI shows


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("compiled")
    options = [option for each in (*STORE, "gpus=1") for option in ("--resource", each)]
    command = [
        "compile",
        "--no-check",
        "--argo",
        "--argo-bucket",
        "own-bucket",
        "--seed",
        "7",
        "--output",
        str(directory),
        *options,
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert str(directory / "compress.argo.yaml") in result.output.splitlines()
    return directory


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The pipeline that KFP would get, without the graph of the candidates: the Workflow has none."""
    arguments, bound = split(resolve("quick", {"seed": 7}))
    path = tmp_path_factory.mktemp("flat") / "compress.yaml"
    compiler.Compiler().compile(make_compress(arguments, bound, Resources(), nested=False), str(path))
    return next(yaml.safe_load_all(path.read_text()))


@pytest.fixture(scope="module")
def workflow(packages: Path) -> dict[str, Any]:
    return yaml.safe_load((packages / "compress.argo.yaml").read_text())


@pytest.fixture(scope="module")
def templates(workflow: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in workflow["spec"]["templates"] if "container" in each}


def dag_of(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    (dag,) = (each["dag"] for each in workflow["spec"]["templates"] if "dag" in each)
    return dag["tasks"]


def test_argo_s_models_know_every_field(workflow: dict[str, Any]) -> None:
    # The models drop what they do not know, so a misspelt field would not come back.
    assert Workflow.model_validate(workflow).model_dump(mode="json", by_alias=True, exclude_none=True) == workflow


def test_every_task_and_dependency_stands_once(
    workflow: dict[str, Any], spec: dict[str, Any], templates: dict[str, Any]
) -> None:
    tasks = dag_of(workflow)
    expected = {name: task.get("dependentTasks", []) for name, task in spec["root"]["dag"]["tasks"].items()}
    for template in workflow["spec"]["templates"]:  # a controller's default would repeat the graph itself
        assert "limit" in template["retryStrategy"]
    assert len(tasks) == len(templates) == len(workflow["spec"]["templates"]) - 1
    assert {task["name"]: task["dependencies"] for task in tasks} == expected
    assert [task["template"] for task in tasks] == [task["name"] for task in tasks] == list(templates)


def test_every_artifact_stands_once(workflow: dict[str, Any], spec: dict[str, Any], templates: dict[str, Any]) -> None:
    places = set()
    for task in dag_of(workflow):
        ours, theirs = templates[task["name"]], spec["root"]["dag"]["tasks"][task["name"]]
        sources = {key: each["taskOutputArtifact"] for key, each in theirs["inputs"].get("artifacts", {}).items()}
        assert {each["name"]: each["from"] for each in task["arguments"]["artifacts"]} == {
            key: "{{{{tasks.{producerTask}.outputs.artifacts.{outputArtifactKey}}}}}".format(**each)
            for key, each in sources.items()
        }
        assert {each["name"] for each in ours["inputs"]["artifacts"]} == set(sources)
        outputs = spec["components"][theirs["componentRef"]["name"]].get("outputDefinitions", {}).get("artifacts", {})
        assert {each["name"] for each in ours["outputs"]["artifacts"]} == set(outputs) - KFP_ONLY
        for artifact in ours["outputs"]["artifacts"]:
            assert (artifact["s3"]["bucket"], artifact["s3"]["endpoint"]) == ("own-bucket", "s3.example:443")
            assert artifact["s3"]["insecure"] is False
            assert artifact["s3"]["secretKeySecret"] == {"name": "own-keys", "key": "secretkey"}
            places.add(artifact["s3"]["key"])
    assert len(places) == sum(len(each["outputs"]["artifacts"]) for each in templates.values())
    assert "kondense/argo/{{workflow.uid}}/train/model" in places


def test_arguments_are_the_pipeline_s_parameters(workflow: dict[str, Any], spec: dict[str, Any]) -> None:
    arguments = {each["name"]: each for each in workflow["spec"]["arguments"]["parameters"]}
    definitions = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: each["description"] for name, each in arguments.items()} == {
        name: each["description"] for name, each in definitions.items()
    }
    values = {name: each["value"] for name, each in arguments.items()}
    assert (values["seed"], values["report_max_drop"], values["dataset_source"]) == ("7", "0.01", "")
    assert arguments["train_epochs"]["value"] == "8"  # the profile is settled


def test_every_stage_takes_its_flags_and_gets_the_step_s_config(
    workflow: dict[str, Any], templates: dict[str, Any]
) -> None:
    values = {
        f"workflow.parameters.{each['name']}": each["value"] for each in workflow["spec"]["arguments"]["parameters"]
    }
    configs = resolve("quick", {"seed": 7})
    steps = {"prune-2": "prune_weights", "quantize-5": "pack_weights"}
    for name, template in templates.items():
        *command, name_of_stage = template["container"]["command"]
        assert command == ["python3", "-m", "kondense.cli"]
        flags = [
            re.sub(r"\{\{(.+?)\}\}", lambda match: values[match[1]], each) for each in template["container"]["args"]
        ]
        names = [each.partition("=")[0] for each in flags if each.startswith("--")]
        assert len(names) == len(set(names))
        stage = STAGES[name_of_stage]
        parsed = make_parser(stage).parse_args(flags)
        expected = configs[steps.get(name, stage.name)].to_dict()
        if stage.name == "evaluate":
            expected["name"] = from_flags(parsed, stage.config_class).to_dict()["name"]
        assert from_flags(parsed, stage.config_class).to_dict() == expected, name
        optional = [each for each in stage.inputs if each.optional and getattr(parsed, each.directory)]
        assert bool(optional) == (name == "distill-2" or name.startswith("evaluate-"))


def test_the_teacher_is_the_report_s_first_candidate(templates: dict[str, Any]) -> None:
    arguments = templates["report"]["container"]["args"]
    first = arguments[arguments.index("--candidate-dirs") + 1]
    assert first == "/artifacts/inputs/teacher"


@pytest.mark.parametrize("version", ["1.30", "1.33"])
def test_pods_are_valid_and_restricted(workflow: dict[str, Any], templates: dict[str, Any], version: str) -> None:
    for name, template in templates.items():
        container = {"name": "main", **template["container"]}
        pod = {"securityContext": workflow["spec"]["securityContext"], "containers": [container]}
        pod |= {key: template[key] for key in ("volumes", "nodeSelector", "tolerations")}
        resource = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]}, "spec": pod}
        kubernetes_validate.validate(resource, version, strict=True)
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        mounted = [each["mountPath"] for each in container["volumeMounts"]]
        for artifact in template["outputs"]["artifacts"]:
            assert any(artifact["path"].startswith(f"{each}/") for each in mounted)
        # The parent of an input below a volume of ours gets Argo's rights alone, and files those of Argo's own user.
        for artifact in template["inputs"]["artifacts"]:
            assert not any(artifact["path"].startswith(f"{each}/") for each in mounted)
            assert (artifact["mode"], artifact["recurseMode"]) == (0o755, True)
        shown = template["annotations"]["workflows.argoproj.io/display-name"]
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9-.]{0,61}[a-zA-Z0-9]", shown)  # Argo 4.0.5 refuses any other


@pytest.mark.parametrize("text", ["data prep", "evaluate own", "-a b-", "x. y.", "a" * 62 + " b", "é x"])
def test_any_name_becomes_one_that_argo_takes(text: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9-.]{0,61}[a-zA-Z0-9]", display_name(text))


def test_training_gets_the_resources_and_keys_come_from_the_secret(templates: dict[str, Any]) -> None:
    train, evaluate = templates["train"], templates["evaluate"]
    assert train["container"]["resources"] == {
        "requests": {"cpu": "1", "memory": "2Gi"},
        "limits": {"memory": "4Gi", "nvidia.com/gpu": "1"},
    }
    assert train["nodeSelector"] == {"pool": "a"} and train["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}} in train["volumes"]
    assert evaluate["container"]["resources"] == {"requests": {}, "limits": {}} and not evaluate["nodeSelector"]
    for template in templates.values():
        variables = {each["name"]: each for each in template["container"]["env"]}
        keys = variables["MINIO_SECRET_KEY"]["valueFrom"]["secretKeyRef"]
        assert (keys["name"], keys["key"]) == ("own-keys", "secretkey")
        assert variables["MINIO_ENDPOINT"]["value"] == "s3.example:443"
        assert template["retryStrategy"]["limit"] == ("0" if template is templates["verdict"] else "2")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("search", "task 'candidates' of 'search' has a pipeline of its own."),
        ("refresh", "task 'condition-1' of 'refresh' has a condition."),
    ],
)
def test_what_a_workflow_cannot_have_is_named(packages: Path, name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^an Argo Workflow takes only stages in a flat graph, but ") as caught:
        make_workflow(packages / f"{name}.yaml", Resources())
    assert str(caught.value).endswith(reason)


def test_a_value_that_argo_would_fill_in_is_refused(tmp_path: Path) -> None:
    configs = resolve("quick", {}, ["report.title={{x}}"])
    with pytest.raises(ValueError, match="task 'report' of 'compress' has a value, that of title, with '{{' in it"):
        compile_all(configs, tmp_path, only=("compress",), argo_bucket="own-bucket")
