"""Katib's Experiments, trials and suggestions through the Kubernetes API."""

import contextlib
from typing import Any

from kondense.cluster.errors import ClusterError
from kondense.cluster.objects import PAGE, CustomObjects, api_error, connected, well_formed
from kondense.katib_search.errors import EXPERIMENT

LABEL = "katib.kubeflow.org/experiment"
INJECTION = "katib.kubeflow.org/metrics-collector-injection"
GONE = 410  # the pages of a list have expired, it starts again
MOST_PAGES = 500  # of a list, and of its starts together: 100,000 objects are more than etcd has


class Katib(CustomObjects):
    """The Experiments of one namespace."""

    kind = EXPERIMENT

    def check_namespace(self) -> None:
        """Raise ClusterError if the namespace lacks the label that Katib needs to collect metrics.

        Without permission to read namespaces the step detects it later: its trials end without metrics.
        """
        from kubernetes import client

        with contextlib.suppress(api_error()), well_formed("get namespaces"):
            namespace = client.CoreV1Api(self.api).read_namespace(self.namespace)
            if (namespace.metadata.labels or {}).get(INJECTION) != "enabled":
                raise ClusterError(self.unlabelled())

    def unlabelled(self) -> str:
        """Return the error for a namespace without Katib's label."""
        return (
            f"namespace {self.namespace} must have Katib's label, or trials report no metrics: "
            f"kubectl label namespace {self.namespace} {INJECTION}=enabled"
        )

    def experiments(self) -> list[dict[str, Any]]:
        """Return all Experiments of the namespace."""
        return self._all("experiments")

    def trials(self, name: str) -> list[dict[str, Any]]:
        """Return all trials of an Experiment."""
        return self._all("trials", label_selector=f"{LABEL}={name}")

    def _all(self, plural: str, **selector: str) -> list[dict[str, Any]]:
        """Return the objects of all pages of a list.

        Raises:
            ClusterError: as ``_call``, or the list has no end.
        """
        found: list[dict[str, Any]] = []
        token = ""
        for _ in range(MOST_PAGES):
            arguments = {**selector, "limit": PAGE, **({"_continue": token} if token else {})}
            try:
                page = self._call(f"list {plural}", "list_namespaced_custom_object", plural, **arguments)
            except api_error() as error:
                if error.status == GONE and token:
                    found, token = [], ""
                    continue
                raise ClusterError(self.kind.explain(error, self.namespace, f"list {plural}")) from None
            with well_formed(f"list {plural}"):
                items = page["items"]
                if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                    raise TypeError(f"items: {type(items).__name__}")
                found += items
                token = str((page.get("metadata") or {}).get("continue") or "")
            if not token:
                return found
        raise ClusterError(f"the Kubernetes API must answer list {plural} in at most {MOST_PAGES:,} pages.")

    def suggestion_failure(self, name: str) -> str:
        """Return why Katib's suggestion proposes no trial; empty if unknown."""
        suggestion = self._read("suggestions", name)
        with well_formed("get suggestions"):
            for condition in ((suggestion or {}).get("status") or {}).get("conditions") or []:
                if condition.get("type") == "Failed" and condition.get("status") == "True":
                    return str(condition.get("message") or condition.get("reason") or "")
        return ""


def connect_to_cluster() -> Any:
    """Return a client of the cluster, or raise ClusterError if there is none."""
    return connected(
        "katib_search needs a cluster with Katib", "on one machine, kondense search FILE runs the same Experiment"
    )
