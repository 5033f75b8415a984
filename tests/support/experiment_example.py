"""A small valid Experiment for the tests of this folder, and its YAML."""

import copy
from pathlib import Path
from typing import Any

import yaml

EXPERIMENT: dict[str, Any] = {
    "apiVersion": "kubeflow.org/v1beta1",
    "kind": "Experiment",
    "metadata": {"name": "example", "namespace": "kubeflow"},
    "spec": {
        "objective": {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["accuracy"]},
        "algorithm": {"algorithmName": "random", "algorithmSettings": [{"name": "random_state", "value": "3"}]},
        "parallelTrialCount": 2,
        "maxTrialCount": 6,
        "maxFailedTrialCount": 6,
        "parameters": [
            {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.9"}},
            {"name": "units", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "64"}},
            {"name": "kind", "parameterType": "categorical", "feasibleSpace": {"list": ["a", "b"]}},
        ],
        "trialTemplate": {
            "primaryContainerName": "trial",
            "trialParameters": [
                {"name": "learningRate", "reference": "lr"},
                {"name": "units", "reference": "units"},
                {"name": "kind", "reference": "kind"},
                {"name": "name", "reference": "${trialSpec.Name}"},
            ],
            "trialSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "spec": {
                    "backoffLimit": 0,
                    "template": {
                        "spec": {
                            "restartPolicy": "Never",
                            "containers": [
                                {
                                    "name": "trial",
                                    "image": "python",
                                    "command": ["sh", "-c"],
                                    "args": [
                                        "echo loss=${trialParameters.learningRate} accuracy=0.5"
                                        " # ${trialParameters.units} ${trialParameters.kind} ${trialParameters.name}"
                                    ],
                                    "resources": {"limits": {"nvidia.com/gpu": 1}},
                                }
                            ],
                        }
                    },
                },
            },
        },
    },
}


def experiment() -> dict[str, Any]:
    """Return a copy that a test may change."""
    return copy.deepcopy(EXPERIMENT)


def container(document: dict[str, Any]) -> dict[str, Any]:
    """Return the trial's container within a document."""
    return document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]


def scripted(script: str, **spec: Any) -> dict[str, Any]:
    """Return an Experiment whose trials run a shell script; `$LR`, `$UNITS`, `$KIND`, `$NAME` hold their values."""
    document = experiment()
    del document["spec"]["maxFailedTrialCount"]
    document["spec"].update(spec)
    container(document)["args"] = [script]
    container(document)["env"] = [
        {"name": "LR", "value": "${trialParameters.learningRate}"},
        {"name": "UNITS", "value": "${trialParameters.units}"},
        {"name": "KIND", "value": "${trialParameters.kind}"},
        {"name": "NAME", "value": "${trialParameters.name}"},
    ]
    return document


def write(document: dict[str, Any], directory: Path) -> Path:
    """Write a document as a YAML file and return its path."""
    path = directory / "experiment.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
