"""The TrainJob of a train_job step, of Kubeflow Trainer 2: trainer.kubeflow.org/v1alpha1.

Only fields that 2.0 to 2.3 have alike are set: where the pods run (node selectors, tolerations, volumes, labels) is a
matter of the runtime. Source: pkg/apis/trainer/v1alpha1/trainjob_types.go of Kubeflow Trainer 2.3.
"""

import json
from collections.abc import Mapping
from typing import Any

from kondense.cluster.errors import ClusterError, Kind
from kondense.cluster.names import RUN, label_value, run_name
from kondense.train_job.config import TrainJobConfig

INSTALL = "github.com/kubeflow/trainer.git/manifests/overlays"
TRAIN_JOB = Kind(
    name="TrainJob",
    group="trainer.kubeflow.org",
    version="v1alpha1",
    plural="trainjobs",
    product="Kubeflow Trainer",
    install=(
        f"(2.3: kubectl apply --server-side -k 'https://{INSTALL}/manager?ref=v2.3.0', then '.../runtimes?ref=v2.3.0')"
    ),
    quota="raise the ResourceQuota of the namespace, or lower nodes, gpus, cpu or memory",
    next_steps=(
        ("Insufficient", "add nodes to the cluster, or lower nodes, gpus, cpu or memory"),
        ("untolerated taint", "tolerate it in a training runtime of your own, and set runtime to its name"),
        ('secret "', "create the Secret with the object store's accesskey and secretkey in the TrainJob's namespace"),
    ),
)
COMMAND = ["python3", "-m", "kondense.cli", "train_node"]
CONTAINER = "node"  # of the pods of every torch runtime
COPIED = ("MINIO_ENDPOINT", "MINIO_SECURE", "MINIO_REGION", "KONDENSE_ALLOW_NETWORK")  # of this step's variables
KEYS = {"MINIO_ACCESS_KEY": "accesskey", "MINIO_SECRET_KEY": "secretkey"}  # variables, from the Secret


class TrainJobError(ClusterError):
    """The TrainJob ended without a model; the text gives the reason and the remedy."""


def build_job(
    config: TrainJobConfig, *, dataset_uri: str, image: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return the TrainJob of a step.

    Args:
        config: the step's parameters.
        dataset_uri: the nodes' data set.
        image: the nodes' image.
        environment: this step's variables; the nodes get those of the object store's address.

    Raises:
        InputError: the run has no id, or the name is not valid.
    """
    name = run_name("TrainJob", config.job_name, config.run_id)
    flags = {
        "dataset-uri": dataset_uri,
        "store-uri": config.store_uri,
        "job": name,
        "train": json.dumps(config.train.to_dict()),
    }
    trainer: dict[str, Any] = {
        "image": image,
        "command": COMMAND,
        "args": [f"--{flag}={literal(text)}" for flag, text in flags.items()],
        "numNodes": config.nodes,
        "numProcPerNode": config.per_node,
    }
    env: list[dict[str, Any]] = [{"name": each, "value": environment[each]} for each in COPIED if environment.get(each)]
    for variable, key in KEYS.items() if config.secret else ():
        env.append({"name": variable, "valueFrom": {"secretKeyRef": {"name": config.secret, "key": key}}})
    if env:
        trainer["env"] = env
    if resources := _resources(config):
        trainer["resourcesPerNode"] = resources
    return {
        "apiVersion": f"{TRAIN_JOB.group}/{TRAIN_JOB.version}",
        "kind": TRAIN_JOB.name,
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/part-of": "kondense", RUN: label_value(config.run_id)},
            "annotations": {RUN: config.run_id},
        },
        "spec": {
            "runtimeRef": {"apiGroup": TRAIN_JOB.group, "kind": config.runtime_kind, "name": config.runtime},
            "trainer": trainer,
        },
    }


def literal(text: str) -> str:
    """Return a text as an argument in which Kubernetes expands no ``$(VARIABLE)``."""
    return text.replace("$(", "$$(")


def _resources(config: TrainJobConfig) -> dict[str, dict[str, str]]:
    limits = {key: value for key, value in (("cpu", config.cpu), ("memory", config.memory)) if value}
    if config.gpus:
        limits[config.accelerator] = str(config.gpus)
    # A request above the limit is rejected, and equal values guarantee the resource.
    return {"limits": limits, "requests": dict(limits)} if limits else {}
