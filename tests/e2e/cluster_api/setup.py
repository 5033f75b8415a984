"""The set-up Jobs: their own code against this API server where it needs no compiling, played otherwise.

Real: credentials and algorithms (kondense_pipelines.deploy), and what the registering Job does with Kubeflow Pipelines,
with packages that hold a name and a number. Played: buckets, and every Job that is not known here. The fault
``NAME-fails`` lets the Job kondense-NAME fail.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kondense_pipelines.cluster.recurring import read_schedule, schedule_run
from kondense_pipelines.cluster.versions import register
from kondense_pipelines.deploy import algorithms, credentials
from kondense_pipelines.deploy.register import connect

from tests.e2e.cluster_api.objects import Object
from tests.e2e.cluster_api.pods import End, play_job, play_pod
from tests.e2e.cluster_api.world import NAMESPACE, Player, World

PIPELINES = ("compress", "search", "refresh")


def play(world: World, job: Object, kfp_endpoint: str) -> Player:
    """Play one of the set-up Jobs."""
    component = job["metadata"]["labels"].get("app.kubernetes.io/component", "")
    work = {"credentials": _credentials, "algorithms": _algorithms, "register": _register}.get(component, _nothing)

    def attempt(pod: Object, number: int) -> Any:
        ended = yield from play_pod(world, pod, lambda: End.SUCCEEDED)
        if f"{component}-fails" in world.faults:
            world.logs[pod["metadata"]["uid"]] = "error: the fake lets this Job fail\n"
            return End.FAILED, "the fake lets this Job fail"
        lines = work(world, job, kfp_endpoint) if ended is End.SUCCEEDED else []
        world.logs[pod["metadata"]["uid"]] = "\n".join(lines)
        return ended, ""

    backoff = {"backoffLimit": 0} if f"{component}-fails" in world.faults else {}
    return play_job(world, {**job, "spec": {**job["spec"], **backoff}}, attempt)


Work = Callable[[World, Object, str], list[str]]


def _credentials(world: World, job: Object, kfp_endpoint: str) -> list[str]:
    return list(credentials.ensure(world.server.client(), NAMESPACE))


def _algorithms(world: World, job: Object, kfp_endpoint: str) -> list[str]:
    files, images = world.find("configmaps", "kondense-algorithms"), world.find("configmaps", "kondense-images")
    assert files and images, "the overlay makes both"
    removing = "--remove" in job["spec"]["template"]["spec"]["containers"][0]["args"]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "algorithms.yaml"
        path.write_text(files["data"]["algorithms.yaml"])
        entries = algorithms.read_algorithms(path, images["data"]["suggestion"])
    return list(algorithms.apply(world.server.client(), NAMESPACE, entries, removing=removing))


def _register(world: World, job: Object, kfp_endpoint: str) -> list[str]:
    found = world.find("configmaps", "kondense-schedule")
    assert found, "the overlay makes it"
    lines = []
    client = connect({"KF_PIPELINES_ENDPOINT": kfp_endpoint})
    # A changed package is another version, which a second call must not make.
    number = job["metadata"]["uid"] if "second-version" in world.faults else 1
    with tempfile.TemporaryDirectory() as scratch:
        schedule = Path(scratch) / "schedule.yaml"
        schedule.write_text(found["data"]["schedule.yaml"])
        wanted = read_schedule(schedule)
        for name in PIPELINES:
            package = Path(scratch) / f"{name}.yaml"
            info = {"name": name, "displayName": f"{name} a network"}
            package.write_text(yaml.safe_dump({"pipelineInfo": info, "root": {}, "number": number}))
            registered = register(client, package, "fake")
            lines.append(f"version {registered.version}")
            if wanted.pipeline == name:
                lines += schedule_run(client, wanted, registered)
    return lines


def _nothing(world: World, job: Object, kfp_endpoint: str) -> list[str]:
    return []
