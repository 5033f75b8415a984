"""A trial's command, rendered from the template."""

import os
import sys
from pathlib import Path

import pytest
from kondense.errors import InputError
from kondense.katib import template
from kondense.katib.spec import parse

from tests.support.experiment_example import container, experiment

ASSIGNMENTS = {"lr": "0.25", "units": "8", "kind": "a"}


def render(document, name="example-b0r0c0-aaaaaa", **arguments):
    arguments.setdefault("environment", {"PATH": "/bin"})
    return template.render(parse(document), name, ASSIGNMENTS, **arguments)


def test_every_placeholder_is_filled():
    command = render(experiment())
    assert command.argv == ("sh", "-c", "echo loss=0.25 accuracy=0.5 # 8 a example-b0r0c0-aaaaaa")
    assert command.deadline_s is None
    assert command.attempts == 1


def test_what_a_value_holds_is_not_replaced_again():
    """Else the values of several parameters could name each other, and multiply."""
    document = experiment()
    place = "${trialParameters.units}"
    document["spec"]["parameters"][2]["feasibleSpace"]["list"] = [f"{place}{place}", "b"]
    command = template.render(
        parse(document), "t", {**ASSIGNMENTS, "kind": f"{place}{place}"}, environment={"PATH": "/bin"}
    )
    assert command.argv[2].endswith(f"# 8 {place}{place} t")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (
            {"args": ["${trialParameters.kind}" * 60_000]},
            "must have at most 2,097,152 characters with its values, but has",
        ),
        ({"env": [{"name": f"A{i}", "value": f"$(A{i - 1})" * 30 if i else "x" * 9} for i in range(9)]}, "2,097,152"),
        ({"args": ["a\0b"]}, "must have no zero byte"),
        ({"env": [{"name": "A", "value": "\0"}]}, "no zero byte"),
        ({"env": [{"name": "A=B", "value": "1"}]}, "must have a name"),
    ],
)
def test_a_command_that_no_process_can_have_is_refused_before_any_trial(change, rule):
    document = experiment()
    place = " ".join(f"${{trialParameters.{name}}}" for name in ("learningRate", "units", "kind", "name"))
    container(document).update(change)
    container(document)["args"] = [*container(document)["args"], place]
    document["spec"]["parameters"][2]["feasibleSpace"]["list"] = ["v" * 1000, "b"]
    made = parse(document)
    with pytest.raises(InputError, match=rule) as caught:
        template.check(made, environment={"PATH": "/bin"})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "change",
    [
        {"runPolicy": {"backoffLimit": "x"}},
        {"runPolicy": [1]},
        {"pytorchReplicaSpecs": {"Master": {"replicas": 10**12, "template": {"spec": {"containers": [{}]}}}}},
    ],
)
def test_a_template_of_another_form_is_refused_before_any_trial(change):
    document = experiment()
    trainer = {**container(document)}
    replicas = {"Master": {"replicas": 1, "template": {"spec": {"containers": [trainer]}}}}
    spec = {"pytorchReplicaSpecs": replicas, **change}
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": spec, "metadata": {"annotations": {"x": "y"}}}
    job["metadata"]["annotations"]["all"] = "".join(trainer["args"])  # every placeholder is used
    document["spec"]["trialTemplate"]["trialSpec"] = job
    with pytest.raises(InputError, match="must be a PyTorchJob, but|at most 1,000 replicas"):
        template.check(parse(document), environment={"PATH": "/bin"})


def test_metadata_of_the_trial():
    document = experiment()
    job = document["spec"]["trialTemplate"]["trialSpec"]
    job["metadata"] = {"labels": {"team": "vision"}}
    document["spec"]["trialTemplate"]["trialParameters"][3]["reference"] = "${trialSpec.Labels[team]}"
    assert render(document).argv[2].endswith("# 8 a vision")
    for key, value in {"Namespace": "kubeflow", "Kind": "Job", "APIVersion": "batch/v1", "Kind[a]": "Job"}.items():
        document["spec"]["trialTemplate"]["trialParameters"][3]["reference"] = f"${{trialSpec.{key}}}"
        assert render(document).argv[2].endswith(f"# 8 a {value}")


def test_the_primary_container_runs():
    document = experiment()
    containers = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    containers.insert(0, {"name": "proxy", "image": "x", "command": ["proxy"]})
    assert render(document).argv[0] == "sh"


def test_python_is_this_interpreter_and_finds_this_code():
    document = experiment()
    container(document)["command"] = ["python3"]
    command = render(document, environment={"PATH": "/bin", "PYTHONPATH": "/mine"})
    assert command.argv[0] == sys.executable
    assert command.environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert command.environment["PYTHONPATH"].split(os.pathsep) == [str(template.ROOT), "/mine"]


def test_variables_come_from_the_template_and_secrets_from_this_machine():
    document = experiment()
    secret = {"secretKeyRef": {"name": "store", "key": "k"}}
    container(document)["env"] = [
        {"name": "RATE", "value": "${trialParameters.learningRate}"},
        {"name": "URI", "value": "s3://bucket/$(RATE)"},
        {"name": "KEY", "valueFrom": secret},
        {"name": "ABSENT", "valueFrom": secret},
    ]
    container(document)["args"].append("--uri=$(URI) $(UNKNOWN) $$(URI)")
    command = render(document, environment={"PATH": "/bin", "KEY": "local", "RATE": "9", "KATIB_TRIAL_NAME": "x"})
    assert command.environment["RATE"] == "0.25"
    assert command.environment["KEY"] == "local"
    assert "ABSENT" not in command.environment
    assert "KATIB_TRIAL_NAME" not in command.environment  # a trial that sees it pushes
    assert command.argv[-1] == "--uri=s3://bucket/0.25 $(UNKNOWN) $(URI)"


def test_overrides_win_over_the_templates_literals():
    document = experiment()
    container(document)["env"] = [{"name": "STORE", "value": "minio://far"}, {"name": "URI", "value": "$(STORE)/x"}]
    command = render(document, overrides={"STORE": "/near"})
    assert command.environment["STORE"] == "/near"
    assert command.environment["URI"] == "/near/x"


def test_the_jobs_limits():
    document = experiment()
    document["spec"]["trialTemplate"]["trialSpec"]["spec"] |= {"activeDeadlineSeconds": 30, "backoffLimit": 2}
    command = render(document)
    assert (command.deadline_s, command.attempts) == (30.0, 3)
    del document["spec"]["trialTemplate"]["trialSpec"]["spec"]["backoffLimit"]
    assert render(document).attempts == 7  # Kubernetes' default of six retries


@pytest.mark.parametrize(
    ("rules", "failing"),
    [
        ([], ()),
        ([{"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0, 3]}}], (1, 2, 137, -9)),
        ([{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [137]}}], (137, -9)),
        ([{"action": "FailJob", "onExitCodes": {"containerName": "proxy", "operator": "In", "values": [1]}}], ()),
        ([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}], ()),
        (
            [
                {"action": "Count", "onExitCodes": {"operator": "In", "values": [2]}},
                {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}},
            ],
            (1, 3, 137, -9),
        ),
    ],
)
def test_the_jobs_pod_failure_policy(rules, failing):
    document = experiment()
    document["spec"]["trialTemplate"]["trialSpec"]["spec"]["podFailurePolicy"] = {"rules": rules}
    command = render(document)
    assert tuple(code for code in (1, 2, 3, 137, -9) if command.fails(code)) == failing


def test_a_metrics_file_is_each_trials_own(tmp_path):
    document = experiment()
    document["spec"]["metricsCollectorSpec"] = {"collector": {"kind": "File"}}
    container(document)["args"].append("--log=/var/log/katib/metrics.log")
    assert render(document, metrics_file=tmp_path / "m").argv[-1] == f"--log={tmp_path / 'm'}"
