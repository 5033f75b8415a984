"""What to look at after a failure: commands, the pods' last words, the namespace's last events."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tests.e2e.cluster.failure import CheckError
from tests.e2e.cluster.kubectl import Kubectl

EVENTS, LINES, PODS = 12, 15, 4


def describe(kubectl: Kubectl, failure: CheckError) -> Iterator[str]:
    """Yield lines that say where to look, and what is seen there now."""
    yield f"  {failure}"
    commands = [*failure.look, *(kubectl.typed("get", "pods", f"--selector={each}") for each in failure.pods)]
    for command in dict.fromkeys(commands):
        yield f"  look: {command}"
    with contextlib.suppress(CheckError):  # the API itself may be what is away
        for selector in failure.pods:
            for pod in kubectl.objects("pods", selector)[-PODS:]:
                yield from describe_pod(kubectl, pod)
        yield from last_events(kubectl)


def describe_pod(kubectl: Kubectl, pod: dict[str, Any]) -> Iterator[str]:
    """Yield a pod's phase, the termination messages and the last lines of the logs of its containers."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    reasons = [f"{each['type']} {each.get('reason', '')}" for each in status.get("conditions", ()) if "reason" in each]
    yield f"  pod {name}: {status.get('phase')} {', '.join(reasons)}".rstrip()
    statuses = {each["name"]: each for each in status.get("containerStatuses", ())}
    for container in pod["spec"]["containers"]:
        state = statuses.get(container["name"], {}).get("state", {})
        if message := termination_message(state):
            yield f"    {container['name']} ended with: {message}"
        if waiting := state.get("waiting"):
            yield f"    {container['name']} waits: {waiting.get('reason')} {waiting.get('message', '')}".rstrip()
        for line in kubectl.logs(name, container["name"], f"--tail={LINES}").splitlines():
            yield f"    {container['name']} | {line}"


def termination_message(state: dict[str, Any]) -> str:
    """Return what a container has written to /dev/termination-log."""
    return " ".join(str(state.get("terminated", {}).get("message") or "").split())


def last_events(kubectl: Kubectl) -> Iterator[str]:
    """Yield the last warnings of the namespace."""
    events = [each for each in kubectl.objects("events") if each.get("type") == "Warning"]
    events.sort(key=lambda event: str(event.get("lastTimestamp") or event["metadata"].get("creationTimestamp") or ""))
    for event in events[-EVENTS:]:
        about = event["involvedObject"]
        message = " ".join(event.get("message", "").split())
        yield f"  event {about.get('kind')} {about.get('name')}: {event.get('reason')}: {message}"
