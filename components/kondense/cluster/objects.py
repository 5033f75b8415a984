"""Custom objects through the Kubernetes API: temporary errors are retried, others become one line with the remedy.

An object is polled instead of watched: a watch ends with 410 whenever the API server has discarded its position, and a
search or a training lasts hours.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kondense import kubernetes_api
from kondense.cluster.errors import ClusterError, Kind, is_final
from kondense.cluster.names import RUN
from kondense.errors import KondenseError
from kondense.json_text import SHOWN

PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 30.0, 60.0, 60.0, 60.0, 60.0, 60.0)  # an API server restarts in minutes
PAGE = 200
LONGEST = 4_000  # characters of a warning
MOST_WARNINGS = 1_000  # that are remembered; in the texts of the same ones may be another number each time
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# Kubernetes' alphabet of random names has no vowels and nothing that is taken for one (rand.go of apimachinery).
RANDOM_END = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}(?=[\": ]|$)")
TEMPORARY = (401, 408, 429, 500, 502, 503, 504)  # 401: a pod's token is renewed while it runs


def connected(needed: str, elsewhere: str) -> Any:
    """Return a client of this pod's cluster, or of the kubeconfig's current context.

    Args:
        needed: who needs what, such as ``katib_search needs a cluster with Katib``.
        elsewhere: what does the same without a cluster.

    Raises:
        ClusterError: there is neither.
    """
    try:
        return kubernetes_api.connect()
    except kubernetes_api.NoClusterError as error:
        raise ClusterError(f"{needed}, but: {error}; {elsewhere}.") from None


class CustomObjects:
    """The objects of one kind in one namespace; a subclass says which kind."""

    kind: Kind

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
            namespace: of the objects.
            pauses_s: the pauses between attempts.
            log: receives the lines of the step's log.
        """
        self.connect = connect
        self.namespace = namespace
        self.pauses_s = pauses_s
        self.log = log
        self.api = connect()
        self.warned: dict[str, str] = {}  # the first warning, by what it says without the random ends of names

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create the object, or return that of an earlier attempt of this step.

        Raises:
            ClusterError: the API rejects it, or another run's object has the name.
        """
        name, run, plural = body["metadata"]["name"], body["metadata"]["annotations"][RUN], self.kind.plural
        for pause_s in (*self.pauses_s, None):
            try:
                return self._call(f"create {plural}", "create_namespaced_custom_object", plural, body=body)
            except api_error() as error:
                if error.status != 409:
                    raise ClusterError(self.kind.explain(error, self.namespace, f"create {plural}")) from None
            existing = self.get(name)
            if existing and not existing["metadata"].get("deletionTimestamp"):
                self._check_owner(existing, name, run)
                self.log(f"{self.kind.noun} {name} exists: continuing it")
                return existing
            if pause_s is None:
                break
            self.log(f"{self.kind.noun} {name} of an earlier attempt is being deleted; waiting {pause_s:g} s")
            time.sleep(pause_s)
        raise ClusterError(
            f"{self.kind.noun} {name} is being deleted, but not gone: kubectl -n {self.namespace} describe it."
        )

    def get(self, name: str) -> dict[str, Any] | None:
        """Return an object; None if there is none."""
        return self._read(self.kind.plural, name)

    def set_owner(self, name: str, owner: Mapping[str, Any] | None) -> None:
        """Set the owner with which the object is deleted; None removes it.

        Without permission the owner is not changed, which is logged.
        """
        body = {"metadata": {"ownerReferences": [dict(owner)] if owner else None}}
        action = f"patch {self.kind.plural}"
        try:
            self._call(action, "patch_namespaced_custom_object", self.kind.plural, name=name, body=body)
        except api_error() as error:
            why = self.kind.explain(error, self.namespace, action)
            self.log(f"{self.kind.noun} {name} keeps its owner: {why}")

    def delete(self, name: str, run: str) -> bool:
        """Delete the run's object with all that belongs to it, but not another run's; return whether it existed."""
        existing = self.get(name)
        if not existing or (existing["metadata"].get("annotations") or {}).get(RUN) != run:
            return False
        from kubernetes import client

        condition = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=existing["metadata"].get("uid")))
        action = f"delete {self.kind.plural}"
        try:
            self._call(action, "delete_namespaced_custom_object", self.kind.plural, name=name, body=condition)
        except api_error() as error:
            if error.status not in (404, 409):
                raise ClusterError(self.kind.explain(error, self.namespace, action)) from None
        return True

    def warnings(self, name: str) -> list[str]:
        """Return Kubernetes' warnings about an object and what was made for it, each in one line with the remedy.

        Warnings that differ in the random end of a pod's name only, as a Job's after each attempt, are one: the first.
        """
        from kubernetes import client

        lines = []
        # Optional: the account may lack the permission, and what is no list of events tells nothing.
        with contextlib.suppress(api_error(), ClusterError), well_formed("list events"):
            found = client.CoreV1Api(self.api).list_namespaced_event(
                self.namespace, field_selector="type=Warning", limit=PAGE
            )
            for event in found.items:
                if (event.involved_object.name or "").startswith(name):
                    message = " ".join((event.message or "").split())
                    kind = (event.involved_object.kind or "object").lower()
                    line = f"warning: {kind} {event.involved_object.name}: {message}"[:LONGEST]
                    line = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
                    line = line.rstrip(".") + self.kind.next_step(f"{event.reason} {message}")
                    key = RANDOM_END.sub("", line)
                    if key in self.warned or len(self.warned) < MOST_WARNINGS:
                        lines.append(self.warned.setdefault(key, line))
        return list(dict.fromkeys(lines))

    def _read(self, plural: str, name: str) -> dict[str, Any] | None:
        action = f"get {plural}"
        try:
            found: dict[str, Any] = self._call(action, "get_namespaced_custom_object", plural, name=name)
            with well_formed(action):
                annotations = found.setdefault("metadata", {}).get("annotations")
                if not isinstance(annotations, Mapping | None):
                    raise TypeError(type(annotations).__name__)
            return found
        except api_error() as error:
            if error.status == 404:
                return None
            raise ClusterError(self.kind.explain(error, self.namespace, action)) from None

    def _call(self, action: str, method: str, plural: str, **arguments: Any) -> Any:
        """Call the API, with retries after temporary errors and with a new token if the old one is rejected."""
        import urllib3
        from kubernetes import client

        for pause_s in (*self.pauses_s, None):
            call = getattr(client.CustomObjectsApi(self.api), method)
            try:
                with well_formed(action):
                    return call(self.kind.group, self.kind.version, self.namespace, plural=plural, **arguments)
            except api_error() as error:
                if error.status not in TEMPORARY or is_final(error):
                    raise
                reason, final = f"{error.status} {error.reason}", self.kind.explain(error, self.namespace, action)
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
        owner = (existing["metadata"].get("annotations") or {}).get(RUN)
        if owner != run:
            whose = f"run {owner}" if owner else "another user"
            raise ClusterError(
                f"{self.kind.noun} {name} in {self.namespace} belongs to {whose}, not to run {run}: delete it "
                f"(kubectl -n {self.namespace} delete {self.kind.plural}.{self.kind.group} {name}), or rename the "
                f"{self.kind.name}."
            )


@contextlib.contextmanager
def well_formed(action: str) -> Iterator[None]:
    """Raise ClusterError if the block does not find in the API's answer what an object of its kind has.

    The generated client raises any of these for what is no JSON, or an object of another kind.
    """
    try:
        yield
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, KondenseError):
            raise
        why = f"{type(error).__name__}: {ascii(str(error))[:SHOWN]}"
        raise ClusterError(f"the Kubernetes API must answer {action} with what it asks for, but: {why}.") from None


def own_namespace() -> str:
    """Return the namespace of this pod; outside of a cluster NAMESPACE, or kubeflow."""
    if NAMESPACE_FILE.is_file():
        return NAMESPACE_FILE.read_text().strip()
    return os.environ.get("NAMESPACE") or "kubeflow"


def api_error() -> Any:
    """Return the class of the API's errors, imported when it is needed."""
    from kubernetes.client import ApiException

    return ApiException
