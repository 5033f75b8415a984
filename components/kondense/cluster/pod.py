"""The pod of a step and the Argo Workflow of its run: the reason for SIGTERM, and the owner of what the step creates.

An eviction, a drain and a terminated run all send SIGTERM. Objects of the cluster distinguish them: Kubernetes sets the
condition DisruptionTarget on a pod before it removes it, and Kubeflow Pipelines terminates a run by setting the
deadline of its Workflow to 0.

Source: TerminateWorkflow in resource_manager.go of Kubeflow Pipelines 2.17; PodDisruptionConditions of Kubernetes.
"""

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from kondense.cluster.errors import ClusterError
from kondense.cluster.objects import well_formed
from kondense.logging import LOG

GROUP, VERSION, PLURAL = "argoproj.io", "v1alpha1", "workflows"
STEP = "main"  # the container of a step in an Argo pod
TIMEOUT_S = (2.0, 4.0)  # to connect, to answer: a pod is killed half a minute after SIGTERM


@dataclasses.dataclass(frozen=True)
class Pod:
    """A pod by namespace and name; an empty name means a process outside of a cluster."""

    api: Any
    namespace: str
    name: str

    def owner(self) -> dict[str, Any] | None:
        """Return the owner reference of the run's Workflow; None if there is none or it cannot be read."""
        pod = self._read()
        for owner in (pod.metadata.owner_references or []) if pod else []:
            if owner.kind == "Workflow":
                return {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
        return None

    def image(self) -> str:
        """Return the image of the step; empty outside of a cluster or if the pod cannot be read."""
        pod = self._read()
        containers = {each.name: each for each in pod.spec.containers} if pod else {}
        return str(containers[STEP].image) if STEP in containers else ""

    def run_has_ended(self) -> bool:
        """Return whether SIGTERM means that the run was terminated, so that no other attempt will continue it.

        Outside of a cluster the user has ended the process. An evicted pod, or one without a known reason, is followed
        by another attempt.
        """
        import urllib3
        from kubernetes import client

        if not self.name:
            return True
        pod = self._read()
        if pod is None or any(
            item.type == "DisruptionTarget" and item.status == "True" for item in pod.status.conditions or []
        ):
            return False
        owner = self.owner()
        if owner is None:
            return False
        try:
            workflow = client.CustomObjectsApi(self.api).get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, owner["name"], _request_timeout=TIMEOUT_S
            )
        except client.ApiException as error:
            return bool(error.status == 404)  # the run itself was deleted
        except urllib3.exceptions.HTTPError:
            return False
        spec = workflow.get("spec") or {}
        return spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))

    def _read(self) -> Any:
        import urllib3
        from kubernetes import client

        if not self.name:
            return None
        try:
            with well_formed("get pods"):
                core = client.CoreV1Api(self.api)
                return core.read_namespaced_pod(self.name, self.namespace, _request_timeout=TIMEOUT_S)
        except (client.ApiException, urllib3.exceptions.HTTPError, ClusterError):
            return None


def pod_name(environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of this process's pod; empty outside of a cluster."""
    if "KUBERNETES_SERVICE_HOST" not in environment:
        return ""
    return environment.get("KFP_POD_NAME") or environment.get("HOSTNAME", "")


@contextlib.contextmanager
def cleaned_up_on_sigterm(pod: Pod, delete: Callable[[], bool], what: str) -> Iterator[None]:
    """Delete what the step created if SIGTERM ends the block because the run was terminated.

    If only this pod is removed, or the reason is unknown, it is kept: the step's next attempt continues it,
    and without one it is deleted with the run's Workflow.

    Args:
        pod: the step's.
        delete: deletes it and returns whether it existed.
        what: its kind and name, for the log.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except SystemExit:
        try:
            if pod.run_has_ended():
                log(f"SIGTERM: {what} {'is deleted' if delete() else 'did not exist'}")
            else:
                log(f"SIGTERM: {what} is kept for the next attempt of this step")
        except ClusterError as error:
            log(f"SIGTERM: {what} could not be deleted: {error}")
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def log(line: str) -> None:
    """Log a line with the time."""
    LOG.info(time.strftime("%H:%M:%S ") + line)
