"""Katib's Trial objects in a pod's own namespace, by two calls of the Kubernetes API.

The standard library sends them: the Kubernetes client would more than double the memory of the container.
"""

import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from kondense.artifacts.schema import check_fields
from kondense.errors import InputError, KondenseError
from kondense.json_text import json_object
from kondense.kubernetes_api import NoClusterError
from kondense.pace import Pace, handlers

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 10.0  # to connect, to send a call and for the whole answer, each
LARGEST_BYTES = 8 * 2**20  # of an answer; an object has at most 1.5 MiB in etcd
MERGE = "application/merge-patch+json"  # lists are replaced as a whole


class ApiError(KondenseError):
    """The Kubernetes API refused a call, or did not answer (status 0)."""

    def __init__(self, status: int, text: str) -> None:
        """Keep the HTTP status of an answer, 0 without one."""
        super().__init__(text)
        self.status = status


class Metadata(TypedDict):
    """Of a Trial."""

    name: str
    resourceVersion: str


class Objective(TypedDict):
    """Of a Trial's specification."""

    objectiveMetricName: str
    additionalMetricNames: NotRequired[list[str] | None]


class Spec(TypedDict):
    """Of a Trial."""

    objective: Objective


class Condition(TypedDict):
    """Of a Trial's status."""

    type: str
    status: str


class Status(TypedDict):
    """Of a Trial."""

    conditions: NotRequired[list[Condition] | None]


class TrialObject(TypedDict):
    """What is used of a Trial; Katib's definition of the resource leaves the types of all fields open."""

    metadata: Metadata
    spec: Spec
    status: NotRequired[Status | None]


def checked(content: dict[str, Any]) -> TrialObject:
    """Return a Trial whose fields have their types.

    Raises:
        ArtifactError: one has not.
    """
    check_fields("the Trial", content, TrialObject)
    return cast(TrialObject, content)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the token would go with it, to whatever host."""

    def redirect_request(self, *arguments: Any) -> None:
        """Return that there is no other request."""


class TrialObjects:
    """The Trials (kubeflow.org/v1beta1) of one namespace.

    Args:
        url: of the API server.
        namespace: of the trials.
        token: a file with a bearer token, read for each call because the kubelet renews it; None: no token.
        certificates: of the API server's authority; None for plain HTTP.
    """

    def __init__(
        self, url: str, namespace: str, token: Path | None = None, certificates: ssl.SSLContext | None = None
    ) -> None:
        self.namespace = namespace
        self._url = f"{url}/apis/kubeflow.org/v1beta1/namespaces/{namespace}/trials"
        self._token = token
        # No proxy: the variables that name one are for ways out of the cluster.
        direct: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _NoRedirect()]
        self._opener = urllib.request.build_opener(
            *direct, *handlers(Pace(TIMEOUT_S, silent_s=TIMEOUT_S), certificates)
        )

    @classmethod
    def of_pod(cls, environment: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> "TrialObjects":
        """Return the trials in the namespace of the pod that runs this, by the account that Katib gives it.

        Raises:
            NoClusterError: this is no pod, or one without an account's token.
        """
        host, port = (environment.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        if not host or not port:
            raise NoClusterError("early stopping needs a pod: KUBERNETES_SERVICE_HOST and _PORT are not set")
        try:
            namespace = (account / "namespace").read_text().strip()
            certificates = ssl.create_default_context(cafile=str(account / "ca.crt"))
            (account / "token").read_text()
        except OSError as error:
            raise NoClusterError(f"early stopping needs the token of a service account, but: {error}") from None
        host = f"[{host}]" if ":" in host else host
        return cls(f"https://{host}:{port}", namespace, account / "token", certificates)

    def read(self, name: str) -> TrialObject:
        """Return a Trial.

        Raises:
            ApiError: the API refused (404: there is none), or did not answer.
            ArtifactError: a field of it has another type.
        """
        return checked(self._call("GET", f"{self._url}/{name}"))

    def patch_status(self, name: str, version: str, status: Mapping[str, Any]) -> None:
        """Replace fields of a Trial's status.

        Args:
            name: of the Trial.
            version: its `metadata.resourceVersion` as read; the API refuses with 409 if it has changed since.
            status: the fields.

        Raises:
            ApiError: the API refused, or did not answer.
        """
        body = {"metadata": {"resourceVersion": version}, "status": status}
        self._call("PATCH", f"{self._url}/{name}/status", json.dumps(body).encode())

    def _call(self, method: str, url: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Accept": "application/json"} | ({"Content-Type": MERGE} if body else {})
        try:
            if self._token is not None:
                headers["Authorization"] = f"Bearer {self._token.read_text().strip()}"
            request = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310
            with self._opener.open(request, timeout=TIMEOUT_S) as reply:
                content = reply.read(LARGEST_BYTES + 1)
                if len(content) <= LARGEST_BYTES and reply.length:
                    raise http.client.IncompleteRead(content, reply.length)
                return json_object(content, "the answer", largest=LARGEST_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, f"{method} {url}: {error.code} {_message(error)}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiError(0, f"{method} {url}: {' '.join(str(error).split())}") from None


def _message(answer: urllib.error.HTTPError) -> str:
    """Return the text of the API's Status object; empty if the answer is another one."""
    try:
        return str(json_object(answer.read(LARGEST_BYTES), "the answer")["message"])
    except (KeyError, InputError, OSError, http.client.HTTPException):
        return ""
