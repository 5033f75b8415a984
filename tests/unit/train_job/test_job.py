"""The parameters of train_job, and the TrainJob that is made of them."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from kondense.cli import make_parser
from kondense.config import from_flags
from kondense.errors import InputError
from kondense.katib.spec import load
from kondense.katib.template import render
from kondense.stages import STAGES
from kondense.train.config import TrainConfig
from kondense.train_job.config import TrainJobConfig
from kondense.train_job.job import build_job
from kondense.train_node.config import TrainNodeConfig
from kondense.trial.config import TrialConfig
from kondense_pipelines.local_search import local_rules

from tests.support.fake_trainer import refusal

ROOT = Path(__file__).parents[3]
RUN = "1234abcd-0000-4000-8000-000000000000"
ENVIRONMENT = {"MINIO_ENDPOINT": "minio:9000", "MINIO_SECURE": "false", "MINIO_SECRET_KEY": "hidden", "PET_NNODES": "3"}


def built(**values: Any) -> dict[str, Any]:
    config = TrainJobConfig(run_id=RUN, **values)
    return build_job(config, dataset_uri="minio://b/data", image="stage:1", environment=ENVIRONMENT)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"secret": ""},
        {"gpus": 4, "cpu": "8", "memory": "16Gi", "nodes": 8, "batch_size": 1024},
        {"runtime": "mine", "runtime_kind": "TrainingRuntime"},
    ],
)
def test_trainer_takes_the_train_job(values: dict[str, Any]) -> None:
    assert refusal(built(**values)) is None


def test_trainer_takes_the_trial_of_the_experiment() -> None:
    experiment = load(ROOT / "manifests" / "train-job" / "experiment.yaml")  # by the rules of Katib's webhook
    assert local_rules.broken(experiment.document) == []
    job = {**experiment.trial_spec, "metadata": {"name": "trial"}}
    assert refusal(job) is None
    made = render(experiment, "trial", {"lr": "0.1", "weight_decay": "0.001"}, environment={})
    assert [each.environment["PET_NODE_RANK"] for each in (made, *made.workers)] == ["0", "1"]
    names = {item["name"] for item in job["spec"]["trainer"]["env"]}
    flags = [argument for argument in made.argv if argument.startswith("--")]
    config = from_flags(make_parser(STAGES["trial"]).parse_args(flags), TrialConfig)
    assert (config.train.learning_rate, config.train.devices) == (0.1, 1)
    assert {"MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"} <= names


def test_the_train_job_says_what_was_asked_for() -> None:
    body = built(nodes=3, gpus=2, memory="16Gi", runtime="mine", runtime_kind="TrainingRuntime")
    assert body["metadata"]["name"] == "kondense-train-1234abcd00004000"
    assert body["metadata"]["annotations"] == {"kondense/run": RUN}
    trainer = body["spec"]["trainer"]
    assert body["spec"]["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": "mine",
    }
    assert (trainer["image"], trainer["numNodes"], trainer["numProcPerNode"]) == ("stage:1", 3, 2)
    limits = {"memory": "16Gi", "nvidia.com/gpu": "2"}
    assert trainer["resourcesPerNode"] == {"limits": limits, "requests": limits}
    env = {each["name"]: each.get("value", each.get("valueFrom")) for each in trainer["env"]}
    assert {name: env[name] for name in ("MINIO_ENDPOINT", "MINIO_SECURE")} == {
        "MINIO_ENDPOINT": "minio:9000",
        "MINIO_SECURE": "false",
    }
    secret = {"secretKeyRef": {"name": "mlpipeline-minio-artifact", "key": "secretkey"}}
    assert env["MINIO_SECRET_KEY"] == secret  # never the value
    assert not any(name.startswith("PET_") for name in env)


def test_the_command_of_a_node_gives_its_parameters_back() -> None:
    """What Kubernetes makes of the arguments, read as the container's command reads them."""
    config = TrainJobConfig(run_id=RUN, nodes=3, gpus=2, learning_rate=0.1, network="mine.$(HOME):net", augment="flip")
    body = build_job(config, dataset_uri="minio://b/data", image="i", environment={})
    trainer = body["spec"]["trainer"]
    assert trainer["command"] == ["python3", "-m", "kondense.cli", "train_node"]
    stage = STAGES["train_node"]
    words = [word.replace("$$", "$") for word in trainer["args"]]  # no variable is named in them unescaped
    assert not any("$(" in word.replace("$$(", "") for word in trainer["args"])
    node = from_flags(make_parser(stage).parse_args(words), stage.config_class)
    assert isinstance(node, TrainNodeConfig)
    expected = TrainConfig(learning_rate=0.1, network="mine.$(HOME):net", augment="flip", devices=2)
    assert node.training == expected
    assert (node.dataset_uri, node.job) == ("minio://b/data", body["metadata"]["name"])
    assert node.store_uri == "minio://mlpipeline/kondense/train-jobs"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"nodes": 0}, r"nodes must be in \[1, 1000\], but got 0"),
        ({"gpus": 2, "devices": 3}, r"devices must be at most the 2 gpus of a node, but got 3\."),
        ({"nodes": 4, "batch_size": 3}, r"batch_size must be at least the 4 processes of 4 nodes, but got 3\."),
        ({"compile": True}, r"compile must be false with 2 processes, but got true\."),
        ({"import_uri": "s3://b/m"}, r"fine_tune or replace_head must be true on several nodes, .*'s3://b/m'"),
        ({"memory": "much"}, r"memory must be a Kubernetes quantity such as 4 or 8Gi, but got 'much'\."),
        ({"runtime": " "}, r"runtime must not be empty, but got ' '\."),
        ({"runtime_kind": "Job"}, r"runtime_kind must be one of ClusterTrainingRuntime, TrainingRuntime"),
    ],
)
def test_bad_input_is_told_with_its_rule_and_value(values: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        TrainJobConfig(run_id=RUN, **values)


def test_a_name_that_is_none_and_a_run_without_id_are_refused() -> None:
    with pytest.raises(InputError, match="the TrainJob's name must be a-z, 0-9 and dashes after a letter, but got 'A'"):
        built(job_name="A")
    with pytest.raises(InputError, match="run_id must be the id of a pipeline run, but got ''"):
        build_job(TrainJobConfig(), dataset_uri="d", image="i", environment={})


def test_a_node_refuses_parameters_that_train_has_not() -> None:
    with pytest.raises(InputError, match=r"train must have parameters of train, but got 'sparsity'\."):
        TrainNodeConfig(dataset_uri="d", store_uri="s", job="j", train='{"sparsity": 0.5}')
    with pytest.raises(InputError, match=r"job must not be empty, but got ''\."):
        TrainNodeConfig(dataset_uri="d", store_uri="s")


def test_the_step_itself_trains_nothing_and_its_nodes_as_train_does() -> None:
    config = TrainJobConfig(run_id=RUN, gpus=4, batch_size=64)
    assert not config.trains
    assert config.train.trains
    shared = [field.name for field in dataclasses.fields(TrainConfig) if field.name != "devices"]
    assert all(getattr(config.train, name) == getattr(config, name) for name in shared)
