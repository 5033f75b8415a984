"""The Experiments in ``manifests/experiments`` hold what a cluster and what a laptop need."""

import argparse
import datetime
import json
import os
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import numpy as np
import pytest
import yaml
from kondense.config import add_flags, from_flags
from kondense.katib import fields, metrics, template
from kondense.katib.spec import load, parse
from kondense.trial.config import TrialConfig
from kondense_pipelines.local_search import local_rules
from kubeflow.katib import models as katib_models

FOLDER = Path(__file__).parents[3] / "manifests" / "experiments"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "kustomization")
ALGORITHMS = ("random", "grid", "tpe", "hyperband", "bohb")
TRAINING = ("lr", "momentum", "weight_decay", "batch_size", "schedule", "augment")


def read(name):
    return load(FOLDER / f"{name}.yaml")


def pod(experiment):
    return experiment.trial_spec["spec"]["template"]["spec"]


def test_the_folder_is_complete():
    assert set(FILES) == {*ALGORITHMS, "pruning", "compression", "decision-tree"}


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_keeps_the_rules_here_and_there(name):
    experiment = read(name)  # every rule of the webhook and of the suggestion service
    assert local_rules.broken(experiment.document) == []


@pytest.mark.parametrize("name", FILES)
def test_the_job_is_valid_to_the_api_server(name):
    job = dict(read(name).trial_spec)
    job["metadata"] = {"name": "trial", "namespace": "kubeflow"}
    kubernetes_validate.validate(job, "1.30", strict=True)


@pytest.mark.parametrize("name", FILES)
def test_the_trial_count_fits_the_search(name):
    search = read(name).search
    planned = search.suggester.planned_trials(search.settings, search.space)
    if search.resource_name:
        assert search.max_trials % planned == 0  # whole cycles of the brackets
    elif planned is not None:
        assert search.max_trials <= planned
    assert 0 < search.max_failed < search.max_trials


def test_the_algorithms_share_one_space_and_objective():
    experiments = [read(name) for name in ALGORITHMS]
    assert len({json.dumps(e.document["spec"]["objective"]) for e in experiments}) == 1
    assert [e.search.algorithm for e in experiments] == list(ALGORITHMS)
    for experiment in experiments:
        resource = ["epochs"] if experiment.search.resource_name else []
        assert list(experiment.search.space.names) == [*TRAINING, *resource]
    wide, grid, tpe, _, bohb = (experiment.search.space for experiment in experiments)
    assert wide.parameters == tpe.parameters == bohb.parameters[:-1]
    for parameter in grid.parameters:
        values = [parameter.level(index) for index in range(parameter.levels)]
        if wide[parameter.name].values:
            assert set(values) <= set(wide[parameter.name].values)
        else:
            assert all(wide[parameter.name].low <= float(value) <= wide[parameter.name].high for value in values)


@pytest.mark.parametrize("name", [name for name in FILES if name != "decision-tree"])
def test_a_trial_is_a_gpu_job_with_its_limits(name):
    experiment = read(name)
    container = template.container(experiment)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert experiment.collector.kind == "Push"
    assert experiment.trial_spec["spec"]["activeDeadlineSeconds"] > 0
    assert set(experiment.objective.strategies.values()) == {"latest"}


@pytest.mark.parametrize("name", FILES)
def test_a_trial_that_is_evicted_is_replaced_and_one_that_fails_is_not(name):
    """As Kubernetes reads a podFailurePolicy: the first rule that matches counts, and no rule counts an attempt."""
    experiment = read(name)
    job = experiment.trial_spec["spec"]
    assert job["backoffLimit"] == 3
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a podFailurePolicy needs it
    evicted, failed = job["podFailurePolicy"]["rules"]
    assert (evicted["action"], evicted["onPodConditions"]) == (
        "Ignore",
        [{"type": "DisruptionTarget", "status": "True"}],
    )
    assert failed["onExitCodes"]["containerName"] == experiment.template["primaryContainerName"]
    space = experiment.search.space
    assignments = {p.name: p.level(0) if p.levels else str(p.low) for p in space.parameters}
    command = template.render(experiment, "trial", assignments, environment={})
    assert all(command.fails(code) for code in (1, 2, 137, -9))
    assert not command.fails(0)
    # The log of a trial that failed stays for a day.
    assert experiment.template["retain"] is True
    assert job["ttlSecondsAfterFinished"] == 86400
    assert pod(experiment)["containers"][0]["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("name", FILES)
def test_katib_is_told_what_the_objective_declares_and_nothing_else(name):
    experiment = read(name)
    container = template.container(experiment)
    words = [*container["command"], *container.get("args", [])]
    (given,) = (word.removeprefix("--metrics=") for word in words if word.startswith("--metrics="))
    objective = experiment.document["spec"]["objective"]
    assert given.split(",") == [objective["objectiveMetricName"], *objective["additionalMetricNames"]]
    assert set(experiment.objective.strategies) == set(given.split(","))
    assert objective.get("goal", 0) < 1
    if name != "decision-tree":
        assert "--report-epochs=true" in words  # by the latest value, which the test above asks for


@pytest.mark.parametrize("name", FILES)
def test_a_trial_is_restricted(name):
    """The restricted Pod Security Standard."""
    spec = pod(read(name))
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", FILES)
def test_no_secret_stands_in_the_text(name):
    for container in pod(read(name))["containers"]:
        for variable in container.get("env", []):
            if re.search("KEY|SECRET|PASSWORD|TOKEN", variable["name"]):
                assert "value" not in variable
                assert variable["valueFrom"]["secretKeyRef"]["name"] == "mlpipeline-minio-artifact"


@pytest.mark.parametrize("name", FILES)
def test_a_command_renders_without_a_rest(name):
    experiment = read(name)
    space = experiment.search.space
    assignments = {p.name: p.level(0) if p.levels else str(p.low) for p in space.parameters}
    command = template.render(experiment, f"{experiment.name}-b0r0c0-abcdef", assignments, environment={})
    assert not [word for word in command.argv if "${" in word or "$(" in word]
    flags = [word.partition("=")[0] for word in command.argv if word.startswith("--")]
    assert len(set(flags)) == len(flags)


def test_the_decision_tree_comes_with_its_script():
    built = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True).stdout
    objects = {item["kind"]: item for item in yaml.safe_load_all(built)}
    script = objects["ConfigMap"]["data"]["decision_tree.py"]
    assert script == (FOLDER / "decision_tree.py").read_text()
    volume = pod(read("decision-tree"))["volumes"][0]
    assert volume["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]


def test_the_decision_trees_script_reports_its_metrics():
    experiment = read("decision-tree")
    space = experiment.search.space
    assignments = {parameter.name: parameter.level(1) for parameter in space.parameters}
    command = template.render(experiment, "decision-tree-b0r0c0-abcdef", assignments, environment=os.environ)
    printed = subprocess.run(
        command.argv, cwd=FOLDER, env=command.environment, capture_output=True, text=True, check=True
    ).stdout
    found = metrics.collect(printed.splitlines(), experiment.collector, experiment.objective)
    assert 0.1 < float(found["accuracy"].latest) < 1.0
    assert int(found["leaves"].latest) >= 2


@pytest.mark.parametrize("name", [name for name in FILES if name != "decision-tree"])
def test_the_trial_takes_every_configuration_of_the_space(name):
    """The flags are the trial's, and every value of the space is in their range."""
    experiment = read(name)
    space = experiment.search.space
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser, TrialConfig)
    rng = np.random.default_rng(0)
    corners = np.array([[0.0], [1.0]]) * np.ones(len(space.names))
    for assignments in space.from_unit(np.concatenate([corners, space.sample(rng, 60)])):
        argv = template.render(experiment, f"{experiment.name}-b0r0c0-abcdef", assignments, environment={}).argv
        assert argv[1:4] == ("-m", "kondense.cli", "trial")
        config = from_flags(parser.parse_args(argv[4:]), TrialConfig)
        tuned = [step.config for step in config.steps if step.stage != "quantize"]
        for found in tuned if name in ("pruning", "compression") else [config.train]:
            assert found.max_epochs == 9
            assert found.epochs == int(assignments.get("epochs", 9))
            assert found.learning_rate == float(assignments["lr"])


NAMES = {str: "str", int: "int", float: "float", bool: "bool"}


def same_fields(expected, model, path):
    """Compare a type of `fields` with a model of Katib's SDK."""
    if model in NAMES.values():
        assert NAMES[expected] == model, path
    elif match := re.fullmatch(r"list\[(.+)\]", model):
        if expected != [dict]:
            same_fields(expected[0], match[1], f"{path}[]")
    elif isinstance(expected, dict):
        types = getattr(katib_models, model).openapi_types
        names = getattr(katib_models, model).attribute_map
        assert {names[key] for key in types} == set(expected), path
        for key, kind in types.items():
            same_fields(expected[names[key]], kind, f"{path}.{names[key]}")
    else:
        assert expected is dict, path  # checked by the rules, or left to the cluster


def test_the_known_fields_are_katibs():
    same_fields(fields.EXPERIMENT["spec"], "V1beta1ExperimentSpec", "spec")


def test_an_experiment_read_back_from_a_cluster_is_taken():
    document = yaml.safe_load((FOLDER / "random.yaml").read_text())
    document["metadata"] |= {
        "uid": "1",
        "generation": 2,
        "creationTimestamp": datetime.datetime.now(),
        "finalizers": [],
    }
    document["status"] = {"trials": 3}
    parse(document)
