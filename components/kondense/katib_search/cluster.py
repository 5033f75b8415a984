"""Katib through the Kubernetes API: temporary errors are retried, others become one line with the remedy.

The Experiment is polled instead of watched: a watch ends with 410 whenever the API server has discarded its position,
and a search lasts hours.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kondense import kubernetes_api
from kondense.katib_search.errors import ClusterError, explain, is_final, next_step
from kondense.katib_search.experiment import RUN

GROUP, VERSION = "kubeflow.org", "v1beta1"
LABEL = "katib.kubeflow.org/experiment"
INJECTION = "katib.kubeflow.org/metrics-collector-injection"
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 30.0, 60.0, 60.0, 60.0, 60.0, 60.0)  # an API server restarts in minutes
PAGE = 200
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
GONE = 410  # the pages of a list have expired, it starts again
TEMPORARY = (401, 408, 429, 500, 502, 503, 504)  # 401: a pod's token is renewed while it runs


class Katib:
    """The Experiments of one namespace."""

    def __init__(
        self,
        connect: Callable[[], Any],
        namespace: str,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        log: Callable[[str], None] = print,
    ) -> None:
        """Connect.

        Args:
            connect: returns a new ``kubernetes.client.ApiClient``; called again if the token is rejected.
            namespace: of the Experiments.
            pauses_s: the pauses between attempts.
            log: receives the lines of the step's log.
        """
        self.connect = connect
        self.namespace = namespace
        self.pauses_s = pauses_s
        self.log = log
        self.api = connect()

    def check_namespace(self) -> None:
        """Raise ClusterError if the namespace lacks the label that Katib needs to collect metrics.

        Without permission to read namespaces the step detects it later: its trials end without metrics.
        """
        from kubernetes import client

        with contextlib.suppress(_api_error()):
            namespace = client.CoreV1Api(self.api).read_namespace(self.namespace)
            if (namespace.metadata.labels or {}).get(INJECTION) != "enabled":
                raise ClusterError(self.unlabelled())

    def unlabelled(self) -> str:
        """Return the error for a namespace without Katib's label."""
        return (
            f"namespace {self.namespace} must have Katib's label, or trials report no metrics: "
            f"kubectl label namespace {self.namespace} {INJECTION}=enabled"
        )

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create the Experiment, or return that of an earlier attempt of this step.

        Raises:
            ClusterError: the API rejects it, or another run's Experiment has the name.
        """
        name, run = body["metadata"]["name"], body["metadata"]["annotations"][RUN]
        for pause_s in (*self.pauses_s, None):
            try:
                return self._call("create experiments", "create_namespaced_custom_object", "experiments", body=body)
            except _api_error() as error:
                if error.status != 409:
                    raise ClusterError(explain(error, self.namespace, "create experiments")) from None
            existing = self.get(name)
            if existing and not existing["metadata"].get("deletionTimestamp"):
                self._check_owner(existing, name, run)
                self.log(f"experiment {name} exists: continuing it")
                return existing
            if pause_s is None:
                break
            self.log(f"experiment {name} of an earlier attempt is being deleted; waiting {pause_s:g} s")
            time.sleep(pause_s)
        raise ClusterError(
            f"experiment {name} is being deleted, but not gone: kubectl -n {self.namespace} describe it."
        )

    def get(self, name: str) -> dict[str, Any] | None:
        """Return an Experiment; None if there is none."""
        return self._read("experiments", name)

    def trials(self, name: str) -> list[dict[str, Any]]:
        """Return all trials of an Experiment."""
        trials: list[dict[str, Any]] = []
        token = ""
        while True:
            arguments = {"label_selector": f"{LABEL}={name}", "limit": PAGE, **({"_continue": token} if token else {})}
            try:
                page = self._call("list trials", "list_namespaced_custom_object", "trials", **arguments)
            except _api_error() as error:
                if error.status == GONE and token:
                    trials, token = [], ""
                    continue
                raise ClusterError(explain(error, self.namespace, "list trials")) from None
            trials += page["items"]
            token = page.get("metadata", {}).get("continue") or ""
            if not token:
                return trials

    def set_owner(self, name: str, owner: Mapping[str, Any] | None) -> None:
        """Set the owner with which the Experiment is deleted; None removes it.

        Without permission the owner is not changed, which is logged.
        """
        body = {"metadata": {"ownerReferences": [dict(owner)] if owner else None}}
        try:
            self._call("patch experiments", "patch_namespaced_custom_object", "experiments", name=name, body=body)
        except _api_error() as error:
            self.log(f"experiment {name} keeps its owner: {explain(error, self.namespace, 'patch experiments')}")

    def delete(self, name: str, run: str) -> bool:
        """Delete the run's Experiment with its trials, but not another run's; return whether it existed."""
        existing = self.get(name)
        if not existing or existing["metadata"].get("annotations", {}).get(RUN) != run:
            return False
        from kubernetes import client

        condition = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=existing["metadata"]["uid"]))
        try:
            self._call(
                "delete experiments", "delete_namespaced_custom_object", "experiments", name=name, body=condition
            )
        except _api_error() as error:
            if error.status not in (404, 409):
                raise ClusterError(explain(error, self.namespace, "delete experiments")) from None
        return True

    def warnings(self, name: str) -> list[str]:
        """Return Kubernetes' warnings about an Experiment's trials, each in one line with the remedy."""
        from kubernetes import client

        events: list[Any] = []
        with contextlib.suppress(_api_error()):  # optional: the account may lack the permission
            events = (
                client.CoreV1Api(self.api)
                .list_namespaced_event(self.namespace, field_selector="type=Warning", limit=PAGE)
                .items
            )
        lines = []
        for event in events:
            if (event.involved_object.name or "").startswith(name):
                message = " ".join((event.message or "").split())
                line = f"warning: {event.involved_object.kind.lower()} {event.involved_object.name}: {message}"
                lines.append(line.rstrip(".") + next_step(f"{event.reason} {message}"))
        return list(dict.fromkeys(lines))

    def suggestion_failure(self, name: str) -> str:
        """Return why Katib's suggestion proposes no trial; empty if unknown."""
        suggestion = self._read("suggestions", name)
        for condition in ((suggestion or {}).get("status") or {}).get("conditions") or []:
            if condition.get("type") == "Failed" and condition.get("status") == "True":
                return str(condition.get("message") or condition.get("reason") or "")
        return ""

    def _read(self, plural: str, name: str) -> dict[str, Any] | None:
        try:
            return self._call(f"get {plural}", "get_namespaced_custom_object", plural, name=name)
        except _api_error() as error:
            if error.status == 404:
                return None
            raise ClusterError(explain(error, self.namespace, f"get {plural}")) from None

    def _call(self, action: str, method: str, plural: str, **arguments: Any) -> Any:
        """Call the API, with retries after temporary errors and with a new token if the old one is rejected."""
        import urllib3
        from kubernetes import client

        for pause_s in (*self.pauses_s, None):
            call = getattr(client.CustomObjectsApi(self.api), method)
            try:
                return call(GROUP, VERSION, self.namespace, plural=plural, **arguments)
            except _api_error() as error:
                if error.status not in TEMPORARY or is_final(error):
                    raise
                reason, final = f"{error.status} {error.reason}", explain(error, self.namespace, action)
                if error.status == 401:
                    self.api = self.connect()
            except urllib3.exceptions.HTTPError as error:
                reason = str(error)
                final = f"the Kubernetes API cannot be reached: {reason}. Is this step allowed to reach it?"
            if pause_s is None:
                raise ClusterError(final)
            self.log(f"could not {action} ({reason}); trying again in {pause_s:g} s")
            time.sleep(pause_s)
        raise AssertionError("the last pause is None")

    def _check_owner(self, existing: Mapping[str, Any], name: str, run: str) -> None:
        owner = existing["metadata"].get("annotations", {}).get(RUN)
        if owner != run:
            whose = f"run {owner}" if owner else "another user"
            raise ClusterError(
                f"experiment {name} in {self.namespace} belongs to {whose}, not to run {run}: delete it "
                f"(kubectl -n {self.namespace} delete experiments.kubeflow.org {name}), or rename the Experiment."
            )


def own_namespace() -> str:
    """Return the namespace of this pod; outside of a cluster NAMESPACE, or kubeflow."""
    if NAMESPACE_FILE.is_file():
        return NAMESPACE_FILE.read_text().strip()
    return os.environ.get("NAMESPACE") or "kubeflow"


def connect_to_cluster() -> Any:
    """Return a client of this pod's cluster, or of the kubeconfig's current context.

    Raises:
        ClusterError: neither exists.
    """
    try:
        return kubernetes_api.connect()
    except kubernetes_api.NoClusterError as error:
        where = "on one machine, kondense search FILE runs the same Experiment"
        raise ClusterError(f"katib_search needs a cluster with Katib, but: {error}; {where}.") from None


def _api_error() -> Any:
    from kubernetes.client import ApiException

    return ApiException
