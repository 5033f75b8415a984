"""The pod that a step runs in, and the Argo Workflow of its run: why the step is ended, and who owns what it made.

An eviction, a drain and a terminated run all come as SIGTERM. What tells them apart stands in objects of the cluster:
Kubernetes puts the condition DisruptionTarget on a pod before it takes it away, and Kubeflow Pipelines terminates a run
by setting the deadline of its Workflow to 0.

Source: TerminateWorkflow in resource_manager.go of Kubeflow Pipelines 2.17; PodDisruptionConditions of Kubernetes.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

GROUP, VERSION, PLURAL = "argoproj.io", "v1alpha1", "workflows"
TIMEOUT_S = (2.0, 4.0)  # to connect, to answer: a pod has half a minute between SIGTERM and its end


@dataclasses.dataclass(frozen=True)
class Pod:
    """A pod by namespace and name; an empty name stands for a process outside of a cluster."""

    api: Any
    namespace: str
    name: str

    def owner(self) -> dict[str, Any] | None:
        """Return the reference by which an object can belong to the run's Workflow; None where there is none to see."""
        found = self._read()
        for each in (found.metadata.owner_references or []) if found else []:
            if each.kind == "Workflow":
                return {"apiVersion": each.api_version, "kind": each.kind, "name": each.name, "uid": each.uid}
        return None

    def run_has_ended(self) -> bool:
        """Tell whether SIGTERM means that the run was terminated, so that nobody will go on with what it made.

        A process outside of a cluster was ended by the person who started it. In a pod it must show: one that was
        evicted, or whose reason cannot be told, is followed by another attempt.
        """
        import urllib3
        from kubernetes import client

        if not self.name:
            return True
        found = self._read()
        if found is None or any(
            each.type == "DisruptionTarget" and each.status == "True" for each in found.status.conditions or []
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
            return client.CoreV1Api(self.api).read_namespaced_pod(self.name, self.namespace, _request_timeout=TIMEOUT_S)
        except (client.ApiException, urllib3.exceptions.HTTPError):
            return None


def pod_name(environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of the pod that this process runs in; empty outside of a cluster."""
    if "KUBERNETES_SERVICE_HOST" not in environment:
        return ""
    return environment.get("KFP_POD_NAME") or environment.get("HOSTNAME", "")
