"""Train a network on several nodes: run a Kubeflow Trainer TrainJob to its end and fetch the model."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kondense.artifacts.model import read_description
from kondense.cluster.objects import CustomObjects, connected, own_namespace
from kondense.cluster.pod import Pod, cleaned_up_on_sigterm, log, pod_name
from kondense.files import json_bytes, read_json
from kondense.images import STAGE_IMAGE
from kondense.store.open import open_store
from kondense.store.store import NotFoundError, Store, StoreError
from kondense.train_job.config import TrainJobConfig
from kondense.train_job.follow import Follower, condition
from kondense.train_job.job import TRAIN_JOB, TrainJobError, build_job
from kondense.train_node.config import model_prefix
from kondense.trial.reason import failure_key

DATASET_FORMAT = 1  # of kondense.data.dataset


class TrainJobs(CustomObjects):
    """The TrainJobs of one namespace."""

    kind = TRAIN_JOB


def run(config: TrainJobConfig, *, dataset_dir: Path, model_dir: Path) -> dict[str, float]:
    """Create the TrainJob, follow it to its end, and write the model that its first node kept.

    The TrainJob of an earlier attempt of the step is continued, or made anew if it has failed. SIGTERM ends the process
    with status 143; it deletes the TrainJob if the run was terminated, and keeps it for the next attempt if only this
    pod is removed. The run's Workflow owns the TrainJob, which is deleted with it.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact. Nodes read it from ``config.dataset_uri`` if set, else from this directory.
        model_dir: receives the Model artifact.

    Returns:
        The metrics of the training.

    Raises:
        InputError: the run has no id.
        ArtifactError: the data set is missing.
        ClusterError: the cluster rejects a request, or cannot be reached.
        StoreError: the object store cannot be reached.
        TrainJobError: the TrainJob failed, was deleted, or its nodes did not start.
    """
    read_json(dataset_dir / "dataset.json", format_version=DATASET_FORMAT)  # the nodes would fail much later
    jobs = TrainJobs(connect_to_cluster, config.namespace or own_namespace(), log=log)
    pod = Pod(jobs.api, own_namespace(), pod_name())
    body = build_job(
        config,
        dataset_uri=config.dataset_uri or str(dataset_dir),
        image=config.image or pod.image() or STAGE_IMAGE,
        environment=os.environ,
    )
    name = body["metadata"]["name"]
    store = open_job_store(config, body)
    with cleaned_up_on_sigterm(pod, lambda: jobs.delete(name, config.run_id), f"TrainJob {name}"):
        create(jobs, body, config, store)
        if jobs.namespace == pod.namespace and (owner := pod.owner()):  # an owner must be of the same namespace
            jobs.set_owner(name, owner)
        log(f"TrainJob {name} in {jobs.namespace}: {config.nodes} nodes with {config.per_node} processes each")
        log(f"or kubectl -n {jobs.namespace} describe trainjobs.trainer.kubeflow.org {name}")
        Follower(jobs, name, config, store).follow()
    try:
        store.download_directory(model_prefix(name), model_dir)
    except NotFoundError as error:
        raise TrainJobError(
            f"TrainJob {name} is complete, but has no model at {store.address(model_prefix(name))}: does the Secret"
            f" {config.secret!r} name the store of this step? ({error})"
        ) from None
    return dict(read_description(model_dir)["lineage"][-1]["metrics"])


def create(jobs: CustomObjects, body: Mapping[str, Any], config: TrainJobConfig, store: Store) -> None:
    """Create the TrainJob, or continue that of an earlier attempt; one that has failed is deleted first."""
    name = body["metadata"]["name"]
    if jobs.get(name) is None:
        store.delete(failure_key(name))  # of one that was deleted
    if condition(jobs.create(body), "Failed"):
        log(f"TrainJob {name} of an earlier attempt has failed: it is made anew and goes on from the latest checkpoint")
        jobs.delete(name, config.run_id)
        store.delete(failure_key(name))
        jobs.create(body)


def open_job_store(config: TrainJobConfig, body: Mapping[str, Any]) -> Store:
    """Return the store of checkpoints and of the model, after writing the TrainJob to it.

    The write shows, before any GPU is used, that the store and its bucket are there.

    Raises:
        StoreError: the environment lacks its address or credentials, or it cannot be reached, refuses or is full.
    """
    store = open_store(config.store_uri)
    try:
        store.write(f"jobs/{body['metadata']['name']}.json", json_bytes(body))
    except StoreError as error:
        raise StoreError(f"nodes could not keep the model: {error} (manifests/buckets makes the buckets)") from None
    return store


def connect_to_cluster() -> Any:
    """Return a client of the cluster, or raise ClusterError if there is none."""
    return connected("train_job needs a cluster with Kubeflow Trainer", "on one machine, the train step takes devices")
