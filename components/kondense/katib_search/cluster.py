"""Katib through the Kubernetes API: patient with what passes, one clear line with the next step for what does not.

The Experiment is looked at again and again instead of watched: a watch ends with 410 whenever the API server has
forgotten where it stood, and a search lasts hours.
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
GONE = 410  # a list that took too long begins anew
PASSING = (401, 408, 429, 500, 502, 503, 504)  # 401: a pod's token is renewed while it runs


class Katib:
    """The Experiments of one namespace."""

    def __init__(
        self,
        connect: Callable[[], Any],
        namespace: str,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        say: Callable[[str], None] = print,
    ) -> None:
        """Connect.

        Args:
            connect: returns a new ``kubernetes.client.ApiClient``; called again when the token is refused.
            namespace: of the Experiments.
            pauses_s: the pauses between attempts.
            say: takes a line for the step's log.
        """
        self.connect = connect
        self.namespace = namespace
        self.pauses_s = pauses_s
        self.say = say
        self.api = connect()

    def check_namespace(self) -> None:
        """Raise ClusterError if the namespace lacks the label without which Katib gets no metrics from its trials.

        A step that may not read namespaces finds out later: its trials end without metrics.
        """
        from kubernetes import client

        with contextlib.suppress(_api_error()):
            found = client.CoreV1Api(self.api).read_namespace(self.namespace)
            if (found.metadata.labels or {}).get(INJECTION) != "enabled":
                raise ClusterError(self.unlabelled())

    def unlabelled(self) -> str:
        """Return the error for a namespace without Katib's label."""
        return (
            f"namespace {self.namespace} must have Katib's label, or trials report no metrics: "
            f"kubectl label namespace {self.namespace} {INJECTION}=enabled"
        )

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create the Experiment, or return the one that an earlier attempt of this step has created.

        Raises:
            ClusterError: the API refused, or another run's Experiment has the name.
        """
        name, run = body["metadata"]["name"], body["metadata"]["annotations"][RUN]
        for pause_s in (*self.pauses_s, None):
            try:
                return self._call("create experiments", "create_namespaced_custom_object", "experiments", body=body)
            except _api_error() as error:
                if error.status != 409:
                    raise ClusterError(explain(error, self.namespace, "create experiments")) from None
            found = self.get(name)
            if found and not found["metadata"].get("deletionTimestamp"):
                self._check_owner(found, name, run)
                self.say(f"experiment {name} is there already: going on with it")
                return found
            if pause_s is None:
                break
            self.say(f"experiment {name} of an earlier attempt is being deleted; waiting {pause_s:g} s")
            time.sleep(pause_s)
        raise ClusterError(
            f"experiment {name} is being deleted and does not go: kubectl -n {self.namespace} describe it."
        )

    def get(self, name: str) -> dict[str, Any] | None:
        """Return an Experiment; None when there is none."""
        return self._read("experiments", name)

    def trials(self, name: str) -> list[dict[str, Any]]:
        """Return all trials of an Experiment."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            arguments = {"label_selector": f"{LABEL}={name}", "limit": PAGE, **({"_continue": token} if token else {})}
            try:
                page = self._call("list trials", "list_namespaced_custom_object", "trials", **arguments)
            except _api_error() as error:
                if error.status == GONE and token:
                    found, token = [], ""
                    continue
                raise ClusterError(explain(error, self.namespace, "list trials")) from None
            found += page["items"]
            token = page.get("metadata", {}).get("continue") or ""
            if not token:
                return found

    def set_owner(self, name: str, owner: Mapping[str, Any] | None) -> None:
        """Let the Experiment go when ``owner`` goes, or stand on its own without one.

        Where the account may not change it, it stays as it is, and the log says so.
        """
        body = {"metadata": {"ownerReferences": [dict(owner)] if owner else None}}
        try:
            self._call("patch experiments", "patch_namespaced_custom_object", "experiments", name=name, body=body)
        except _api_error() as error:
            self.say(f"experiment {name} keeps its owner: {explain(error, self.namespace, 'patch experiments')}")

    def delete(self, name: str, run: str) -> bool:
        """Delete the run's Experiment with its trials; return whether it was there. Another's is left alone."""
        found = self.get(name)
        if not found or found["metadata"].get("annotations", {}).get(RUN) != run:
            return False
        from kubernetes import client

        condition = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=found["metadata"]["uid"]))
        try:
            self._call(
                "delete experiments", "delete_namespaced_custom_object", "experiments", name=name, body=condition
            )
        except _api_error() as error:
            if error.status not in (404, 409):
                raise ClusterError(explain(error, self.namespace, "delete experiments")) from None
        return True

    def warnings(self, name: str) -> list[str]:
        """Return what goes wrong with an Experiment's trials, a line each: Kubernetes' own words and the next step."""
        from kubernetes import client

        events: list[Any] = []
        with contextlib.suppress(_api_error()):  # they only help; the account may not be allowed to read them
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

    def suggestion_trouble(self, name: str) -> str:
        """Return why Katib's suggestion makes no trial, if it says so."""
        found = self._read("suggestions", name)
        for condition in ((found or {}).get("status") or {}).get("conditions") or []:
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
        """Call the API; repeat while it is away or fails, and with a new token when the old one is refused."""
        import urllib3
        from kubernetes import client

        for pause_s in (*self.pauses_s, None):
            call = getattr(client.CustomObjectsApi(self.api), method)
            try:
                return call(GROUP, VERSION, self.namespace, plural=plural, **arguments)
            except _api_error() as error:
                if error.status not in PASSING or is_final(error):
                    raise
                reason, final = f"{error.status} {error.reason}", explain(error, self.namespace, action)
                if error.status == 401:
                    self.api = self.connect()
            except urllib3.exceptions.HTTPError as error:
                reason = str(error)
                final = f"the Kubernetes API cannot be reached: {reason}. Is this step allowed to reach it?"
            if pause_s is None:
                raise ClusterError(final)
            self.say(f"could not {action} ({reason}); trying again in {pause_s:g} s")
            time.sleep(pause_s)
        raise AssertionError("the last pause is None")

    def _check_owner(self, found: Mapping[str, Any], name: str, run: str) -> None:
        owner = found["metadata"].get("annotations", {}).get(RUN)
        if owner != run:
            whose = f"run {owner}" if owner else "somebody else"
            raise ClusterError(
                f"experiment {name} in {self.namespace} belongs to {whose}, not to run {run}: delete it "
                f"(kubectl -n {self.namespace} delete experiments.kubeflow.org {name}), or rename the given Experiment."
            )


def own_namespace() -> str:
    """Return the namespace that this pod runs in; outside of a cluster NAMESPACE, or kubeflow."""
    if NAMESPACE_FILE.is_file():
        return NAMESPACE_FILE.read_text().strip()
    return os.environ.get("NAMESPACE") or "kubeflow"


def connect_to_cluster() -> Any:
    """Return a client of the cluster that this pod runs in, or of the kubeconfig's current context.

    Raises:
        ClusterError: there is neither.
    """
    try:
        return kubernetes_api.connect()
    except kubernetes_api.NoClusterError as error:
        where = "on one machine, kondense search FILE runs the same Experiment"
        raise ClusterError(f"katib_search needs a cluster with Katib, but: {error}; {where}.") from None


def _api_error() -> type[Exception]:
    from kubernetes.client import ApiException

    error: type[Exception] = ApiException
    return error
