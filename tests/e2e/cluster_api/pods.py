"""Pods and Jobs as a kubelet and the Job controller treat them, without executing anything."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

from tests.e2e.cluster_api.objects import Object
from tests.e2e.cluster_api.world import Player, World, owner

TICKS = 3


class End(StrEnum):
    """How a pod ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    EVICTED = "Evicted"
    DELETED = "Deleted"


def start_pod(world: World, template: Object, *, prefix: str, owned_by: Object, labels: dict[str, str]) -> Object:
    """Create a pod from a template; it runs at once."""
    metadata = template.get("metadata", {})
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{prefix}-",
            "labels": {**metadata.get("labels", {}), **labels},
            "ownerReferences": owner(owned_by),
        },
        "spec": template["spec"],
        "status": {"phase": "Running"},
    }
    return world.create("pods", body)


def play_pod(world: World, pod: Object, end: Callable[[], End | None], *, ticks: int = TICKS) -> Iterator[Any]:
    """Let a pod run until ``end`` says how it ended, or it is evicted or deleted; the generator returns which."""
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    for _ in range(ticks):
        yield
    while True:
        if not world.alive("pods", pod):
            return End.DELETED
        if uid in world.evicted:
            disruption = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            world.set_status("pods", name, {"phase": "Failed", "conditions": [disruption]})
            return End.EVICTED
        if ended := end():
            return ended
        yield


def end_pod(world: World, pod: Object, ended: End, message: str = "") -> None:
    """Set a pod's last status, with what its container wrote to /dev/termination-log."""
    code = 0 if ended is End.SUCCEEDED else 1
    container = pod["spec"]["containers"][0]["name"]
    state = {"terminated": {"exitCode": code, "reason": "Completed" if not code else "Error", "message": message}}
    statuses = [{"name": container, "state": state}]
    world.set_status("pods", pod["metadata"]["name"], {"phase": ended.value, "containerStatuses": statuses})


def play_job(world: World, job: Object, attempt: Callable[[Object, int], Any]) -> Player:
    """Make pods of a Job until one succeeds or the Job's rules say that it failed; the generator returns whether.

    Counts as the Job controller of Kubernetes 1.34: a pod that failed or went away takes one of the backoffLimit, one
    with the condition DisruptionTarget does not where the podFailurePolicy ignores that.
    """
    name, spec = job["metadata"]["name"], job["spec"]
    labels = {"batch.kubernetes.io/job-name": name, "job-name": name}
    rules = spec.get("podFailurePolicy", {}).get("rules", ())
    ignored = {each["type"] for rule in rules if rule["action"] == "Ignore" for each in rule.get("onPodConditions", ())}
    fails_at_once = any(rule["action"] == "FailJob" and "onExitCodes" in rule for rule in rules)
    failures, number = 0, 0
    while failures <= spec.get("backoffLimit", 6) and world.alive("jobs", job):
        pod = start_pod(world, spec["template"], prefix=name, owned_by=job, labels=labels)
        ended, message = yield from attempt(pod, number)
        number += 1
        if ended in (End.SUCCEEDED, End.FAILED):
            end_pod(world, pod, ended, message)
        if ended is End.SUCCEEDED:
            set_job(world, name, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
            return True
        if ended is End.EVICTED and "evicted-trials-fail" in world.faults:
            break
        failures += not (ended is End.EVICTED and "DisruptionTarget" in ignored)
        if ended is End.FAILED and fails_at_once:
            break
        yield
    world.warn("Job", name, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    set_job(world, name, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    return False


def set_job(world: World, name: str, kind: str, reason: str, message: str) -> None:
    """Set a Job's last condition."""
    condition = {"type": kind, "status": "True", "reason": reason, "message": message}
    world.set_status("jobs", name, {"conditions": [condition]})
