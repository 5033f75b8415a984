"""The pod of a step and the Argo Workflow of its run: the reason for SIGTERM, and the owner of the Experiment.

An eviction, a drain and a terminated run all send SIGTERM. Objects of the cluster distinguish them: Kubernetes sets the
condition DisruptionTarget on a pod before it removes it, and Kubeflow Pipelines terminates a run by setting the
deadline of its Workflow to 0.

Source: TerminateWorkflow in resource_manager.go of Kubeflow Pipelines 2.17; PodDisruptionConditions of Kubernetes.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

GROUP, VERSION, PLURAL = "argoproj.io", "v1alpha1", "workflows"
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
            return client.CoreV1Api(self.api).read_namespaced_pod(self.name, self.namespace, _request_timeout=TIMEOUT_S)
        except (client.ApiException, urllib3.exceptions.HTTPError):
            return None


def pod_name(environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of this process's pod; empty outside of a cluster."""
    if "KUBERNETES_SERVICE_HOST" not in environment:
        return ""
    return environment.get("KFP_POD_NAME") or environment.get("HOSTNAME", "")
