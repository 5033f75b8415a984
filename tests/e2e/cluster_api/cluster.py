"""A cluster for a dry run: API server, players, Kubeflow Pipelines' API, and a real S3 gateway as the object store."""

import base64
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from kondense_pipelines.deploy.algorithms import CONFIG_MAP, KEY

from tests.e2e.cluster_api import argo, katib, setup
from tests.e2e.cluster_api.objects import Object
from tests.e2e.cluster_api.pipelines import FakeRuns
from tests.e2e.cluster_api.world import Player, World, run_world
from tests.support.fake_kfp import serve as serve_kfp

KATIB = {
    "kind": "KatibConfig",
    "runtime": {"suggestions": [{"algorithmName": "hyperband", "image": "katib/hyperband"}]},
}


@dataclass
class Cluster:
    """A fake cluster with Kubeflow Pipelines and Katib installed, and nothing of ours."""

    world: World
    kfp: FakeRuns
    kfp_endpoint: str
    s3_endpoint: str
    kubeconfig: Path


@contextlib.contextmanager
def run_cluster(directory: Path, store: Mapping[str, str], model_dir: Path) -> Iterator[Cluster]:
    """Run a cluster during the block.

    Args:
        directory: gets the kubeconfig.
        store: the variables that reach the object store (MINIO_ENDPOINT and the others), set in the environment too.
        model_dir: a Model artifact, which the runs choose.
    """
    with run_world() as world:
        kfp = FakeRuns(world, model_dir)
        with serve_kfp(kfp) as endpoint:
            install(world, store)
            world.controllers |= {
                "jobs": lambda job: _play_job(world, job, endpoint),
                "experiments": lambda found: katib.Search(world, found).play(),
                "workflows": lambda found: argo.play(world, found, model_dir),
                "statefulsets": lambda found: _claim(world, found),
            }
            kubeconfig = world.server.write_kubeconfig(directory / "kubeconfig")
            yield Cluster(world, kfp, endpoint, store["MINIO_ENDPOINT"].rpartition("/")[2], kubeconfig)


def install(world: World, store: Mapping[str, str]) -> None:
    """Make what Kubeflow Pipelines and Katib bring: the object store's Secret and Katib's configuration."""
    keys = {"accesskey": store["MINIO_ACCESS_KEY"], "secretkey": store["MINIO_SECRET_KEY"]}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
    named = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mlpipeline-minio-artifact"}}
    world.create("secrets", {**named, "data": data})
    named = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG_MAP}}
    world.create("configmaps", {**named, "data": {KEY: yaml.safe_dump(KATIB)}})


def _play_job(world: World, job: Object, endpoint: str) -> Player | None:
    """Play a set-up Job; the Jobs of trials are played by Katib."""
    ours = job["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "kondense"
    return setup.play(world, job, endpoint) if ours else None


def _claim(world: World, found: Object) -> Player:
    """Make the volume's claim of a StatefulSet, which outlives it; the fault object-left leaves a Service, too."""
    (template,) = found["spec"]["volumeClaimTemplates"]
    labels = template["metadata"].get("labels", {})
    metadata = {"name": f"{template['metadata']['name']}-{found['metadata']['name']}-0", "labels": labels}
    kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    if world.find("persistentvolumeclaims", metadata["name"]) is None:
        world.create("persistentvolumeclaims", {**kind, "metadata": metadata, "spec": template["spec"]})
    if "object-left" in world.faults:
        metadata = {"name": "left-behind", "labels": found["metadata"]["labels"]}
        world.create("services", {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}})
    yield
