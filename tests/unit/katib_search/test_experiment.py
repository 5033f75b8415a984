"""The Experiment that is sent: the given one, with a step's values where it is told to put them."""

import json
import re
from pathlib import Path

import pytest
import yaml
from kondense.cluster.names import label_value, run_name
from kondense.katib.document import settings_of
from kondense.katib.spec import parse
from kondense.katib_search.config import KatibSearchConfig, read_pairs, read_tolerations
from kondense.katib_search.experiment import build_plan
from kondense.katib_search.job import trial_config, trial_container, variable

EXPERIMENTS = Path(__file__).parents[3] / "manifests" / "experiments"
RUN = "3f2b8a9c-77d1-4c1e-9a55-0123456789ab"


def plan(text: str, environment: dict[str, str] | None = None, **changes):
    config = KatibSearchConfig(experiment=text, run_id=RUN, **changes)
    return build_plan(config, dataset_uri="minio://b/data", environment=environment or {})


def args(made):
    return trial_container(made.spec["trialTemplate"]["trialSpec"])["args"]


def container(made):
    return trial_container(made.spec["trialTemplate"]["trialSpec"])


def test_nothing_given_changes_nothing_but_name_and_addresses(bohb: str) -> None:
    made = plan(bohb)
    given = yaml.safe_load(bohb)
    assert made.name == "kondense-bohb-3f2b8a9c77d14c1e"
    assert {**made.spec, "trialTemplate": None} == {**given["spec"], "trialTemplate": None}
    assert variable(container(made), "DATASET_URI") == "minio://b/data"
    assert variable(container(made), "STORE_URI") == "minio://mlpipeline/kondense/trials"
    assert args(made) == args(type(made)(given))
    assert (made.search.resource_name, made.search.max_resource) == ("epochs", 9.0)


@pytest.mark.parametrize("name", ["random", "tpe", "hyperband", "bohb"])
def test_every_algorithm_gives_an_experiment_that_katib_takes(bohb: str, name: str) -> None:
    """By Katib's own rules, as kondense_pipelines.local_search holds them."""
    made = plan(bohb, algorithm=name, max_epochs=3, parallel_trials=2)
    parsed = parse(json.loads(json.dumps(made.body)))
    assert parsed.search.algorithm == name
    flags = dict(word.removeprefix("--").split("=", 1) for word in args(made))
    assert flags["train.max_epochs"] == "3"
    with_rungs = name in ("hyperband", "bohb")
    assert flags["train.epochs"] == ("${trialParameters.epochs}" if with_rungs else "3")
    assert made.search.max_resource == (3.0 if with_rungs else None)
    assert parsed.search.max_trials is not None and parsed.search.parallel == 2


def test_what_an_algorithm_cannot_search_is_told(random_search: str) -> None:
    with pytest.raises(ValueError, match="'lr'.* step"):
        plan(random_search, algorithm="grid")
    with pytest.raises(ValueError, match="resource_name"):
        plan(random_search, algorithm="bohb")


def test_whole_cycles_of_the_brackets(bohb: str) -> None:
    assert plan(bohb).spec["maxTrialCount"] == 80
    assert plan(bohb, max_epochs=3).spec["maxTrialCount"] == 84  # cycles of 6: 3 + 1, 2
    for count in (7, 20, 22, 30, 80, 1000):  # what the user asks for, below and above a cycle of brackets
        assert plan(bohb, max_trials=count).spec["maxTrialCount"] == count
        assert plan(bohb, max_trials=count, algorithm="hyperband", max_epochs=27).spec["maxTrialCount"] == count
    assert plan(bohb, max_trials=2).spec["parallelTrialCount"] == 2
    assert plan(bohb, max_trials=2).spec["maxFailedTrialCount"] == 1


def test_the_name_is_the_runs_and_fits() -> None:
    name = run_name("Experiment", "kondense-compression-of-everything", RUN)
    assert len(name) <= 40 and name.endswith("-3f2b8a9c77d14c1e")
    assert name == run_name("Experiment", "kondense-compression-of-everything", RUN)
    assert name != run_name("Experiment", "kondense-compression-of-everything", RUN.replace("3", "4"))


def test_labels_and_annotations_lead_to_the_run(bohb: str) -> None:
    found = plan(bohb, pipeline="search, and more").body["metadata"]
    assert found["labels"] == {
        "app.kubernetes.io/name": "kondense",
        "app.kubernetes.io/part-of": "kondense",
        "kondense/run": RUN,
        "kondense/pipeline": "search-and-more",
    }
    assert found["annotations"] == {"kondense/run": RUN, "kondense/pipeline": "search, and more"}
    assert "kondense/pipeline" not in plan(bohb).body["metadata"]["labels"]


@pytest.mark.parametrize("text", [RUN, "a run of Ümläut & co.", "-x-", "a" * 62 + "._b", "x" * 100, "1"])
def test_any_text_becomes_a_labels_value(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?", label_value(text))


def test_settings_may_hold_commas(bohb: str) -> None:
    settings = {each["name"]: each["value"] for each in plan(bohb).spec["algorithm"]["algorithmSettings"]}
    given = '{"eta": "3", "note": "a=1, b=2"}'
    assert read_pairs("settings", given) == {"eta": "3", "note": "a=1, b=2"}
    changed = plan(bohb, settings='{"eta": "3"}').spec["algorithm"]["algorithmSettings"]
    assert {each["name"]: each["value"] for each in changed} == settings | {"eta": "3"}
    for text, said in (('{"eta": 3}', "must map names to texts, but eta is 3"), ("{eta", "must be JSON, but")):
        with pytest.raises(ValueError, match=said):
            read_pairs("settings", text)


def test_a_small_number_of_json_stays_a_number(bohb: str) -> None:
    body = yaml.safe_load(bohb)
    body["spec"]["objective"]["goal"] = 1e-05
    assert plan(json.dumps(body)).spec["objective"]["goal"] == 1e-05


def test_gpus_nodes_and_memory(bohb: str) -> None:
    made = plan(
        bohb,
        gpus=2,
        accelerator="amd.com/gpu",
        node_selector="pool=gpu, kind=a100",
        tolerations="team=vision:NoSchedule",
        cpu="8",
        memory="16Gi",
        shared_memory="4Gi",
    )
    pod = made.spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    limits = container(made)["resources"]["limits"]
    assert limits == {"cpu": "8", "memory": "16Gi", "amd.com/gpu": "2"}
    assert container(made)["resources"]["requests"] == {"cpu": "8", "memory": "16Gi"}
    assert pod["nodeSelector"] == {"pool": "gpu", "kind": "a100"}
    assert pod["tolerations"] == [
        {"key": "team", "operator": "Equal", "value": "vision", "effect": "NoSchedule"},
        {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    ]
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}} in pod["volumes"]
    parse(json.loads(json.dumps(made.body)))  # a Job to the API server


def test_without_gpus_none_is_asked_for(bohb: str) -> None:
    assert not [name for name in container(plan(bohb, gpus=0))["resources"]["limits"] if "/" in name]
    assert container(plan(bohb))["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_store_of_the_step_is_the_trials(bohb: str) -> None:
    environment = {"MINIO_ENDPOINT": "seaweedfs.kubeflow:9000", "MINIO_SECRET_KEY": "hidden"}
    made = plan(
        bohb, environment, store_uri="minio://other/place", image="registry/stage:1", network="resnet8", width=0.5
    )
    assert variable(container(made), "MINIO_ENDPOINT") == "seaweedfs.kubeflow:9000"
    assert variable(container(made), "STORE_URI") == "minio://other/place"
    assert "hidden" not in json.dumps(made.body)
    assert container(made)["image"] == "registry/stage:1"
    assert {"--train.network=resnet8", "--train.width=0.5"} <= set(args(made))


def test_what_the_best_trial_ran_with_is_read_from_its_command(bohb: str) -> None:
    made = plan(bohb, network="resnet8")
    given = {"lr": "0.1", "momentum": "0.8", "weight_decay": "0.001", "batch_size": "64", "schedule": "constant"}
    found = trial_config(made.spec["trialTemplate"], "x-b0r2c1-abcdef", {**given, "augment": "crop", "epochs": "9"})
    assert (found.dataset_uri, found.trial_name) == ("minio://b/data", "x-b0r2c1-abcdef")
    assert (found.train.learning_rate, found.train.batch_size, found.train.network) == (0.1, 64, "resnet8")
    assert (found.train.epochs, found.train.max_epochs, found.train.label_smoothing) == (9, 9, 0.0)


def test_the_most_epochs_are_those_of_every_stage_that_has_the_resource() -> None:
    compression = (EXPERIMENTS / "compression.yaml").read_text()
    made = plan(compression, max_epochs=3)
    flags = dict(word[2:].split("=", 1) for word in args(made))
    assert [name for name, value in flags.items() if value == "3"] == ["prune.max_epochs", "distill.max_epochs"]
    starts = [settings_of(each.spec)["start"].count("recipe=") for each in (made, plan(compression))]
    assert starts == [2, 3]  # the last bracket has a seat for each of its rungs
    fixed = plan((EXPERIMENTS / "pruning.yaml").read_text(), algorithm="random", max_epochs=3)
    assert {"--prune.epochs=3", "--prune.max_epochs=3"} <= set(args(fixed))
    assert not [word for word in args(fixed) if word.startswith("--train.epochs")]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"algorithm": "annealing"},
            "hyperband, multivariate-tpe, pbt, random, sobol, tpe, but got 'annealing'",
        ),
        ({"settings": "eta=1"}, "eta must be .* at least 2"),
        ({"settings": "etta=3"}, "etta"),
        ({"space": "{}"}, "space must be a list"),
        ({"space": "[{"}, "space must be JSON or YAML"),
        ({"space": '[{"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "1", "max": "2"}}]'}, "epochs"),
        ({"gpus": -2}, "gpus must be in"),
        ({"memory": "8 GB"}, "memory must be a Kubernetes quantity such as 4 or 8Gi, but got '8 GB'"),
        ({"tolerations": "a b"}, "tolerations must be key=value:effect"),
        ({"node_selector": "gpu"}, "node_selector must be key=value"),
        ({"experiment": "kind: Job"}, "experiment must be an Experiment of kubeflow.org/v1beta1"),
        ({"experiment": "a: ["}, "experiment must be JSON or YAML"),
        ({"experiment": " "}, "experiment must be a Katib Experiment"),
        ({"experiment": "{apiVersion: kubeflow.org/v1beta1, kind: Experiment}"}, "must have a spec with 'spec'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(bohb: str, change: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        plan(**{"text": change.pop("experiment", bohb), **change})


def test_a_run_without_an_id_has_no_name(bohb: str) -> None:
    with pytest.raises(ValueError, match="run_id must be the id of a pipeline run"):
        build_plan(KatibSearchConfig(experiment=bohb), dataset_uri="x", environment={})


def test_trials_that_run_something_else_leave_no_model(bohb: str) -> None:
    with pytest.raises(ValueError, match="must run python3 -m kondense.cli trial"):
        plan(bohb.replace("kondense.cli", "other.cli"))
    with pytest.raises(ValueError, match="unknown parameter 'netwerk'"):
        plan(bohb.replace("--train.network=", "--netwerk="))
    with pytest.raises(ValueError, match="lr has been renamed: use train.learning_rate"):
        plan(bohb.replace("--train.learning_rate=", "--lr="))


def test_tolerations() -> None:
    assert read_tolerations("gpu") == [{"key": "gpu", "operator": "Exists"}]
    assert read_tolerations("") == []


def test_trials_report_the_objectives_metrics_whatever_the_template_said(bohb: str) -> None:
    document = yaml.safe_load(bohb)
    objective = document["spec"]["objective"]
    objective |= {"objectiveMetricName": "score", "additionalMetricNames": ["validation_accuracy"]}
    for strategies, epochs in (([("score", "latest"), ("validation_accuracy", "latest")], "true"), ([], "false")):
        objective["metricStrategies"] = [{"name": name, "value": value} for name, value in strategies]
        args = trial_container(plan(yaml.safe_dump(document)).spec["trialTemplate"]["trialSpec"])["args"]
        assert [each for each in args if each.startswith("--metrics=")] == ["--metrics=score,validation_accuracy"]
        assert f"--report-epochs={epochs}" in args  # elsewhere a value in the middle could decide the trial's


def test_a_smaller_search_ends_after_as_large_a_share_of_failures(bohb: str) -> None:
    assert [plan(bohb, max_trials=count).spec["maxFailedTrialCount"] for count in (80, 20, 10, 1)] == [32, 8, 4, 1]
    assert plan(bohb, max_trials=20, max_failed_trials=15).spec["maxFailedTrialCount"] == 15


def test_the_given_labels_stay(bohb: str) -> None:
    """A network policy selects the suggestion by them, and README's uninstall the Experiment."""
    made = plan(bohb)
    assert made.body["metadata"]["labels"]["app.kubernetes.io/name"] == "kondense"
    assert made.body["metadata"]["labels"]["app.kubernetes.io/part-of"] == "kondense"


@pytest.mark.parametrize("ui", ["kf.example", "ftp://kf.example", "https://kf.example/katib/?ns=a", "https://"])
def test_the_pages_address_is_an_address(bohb: str, ui: str) -> None:
    with pytest.raises(ValueError, match="ui must be an address such as https://host or https://host/katib"):
        plan(bohb, ui=ui)
    assert plan(bohb, ui="https://kf.example/katib").body
