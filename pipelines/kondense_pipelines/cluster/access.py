"""The connection to Kubeflow Pipelines, the version of the server and the address of its pages."""

import contextlib
import dataclasses
import re
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from kondense.errors import InputError, KondenseError
from kondense.json_text import json_value
from kondense.kubernetes_api import limit_size, limit_time
from kondense.pace import Pace, handlers

from kondense_pipelines.cluster.package import Package
from kondense_pipelines.graphs.resources import OLDEST, TELLS_MORE

FORWARD = "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80"
ENDPOINT = "http://localhost:8080"  # the local end of FORWARD
HINT = f"{FORWARD}, then --endpoint {ENDPOINT}"
NEWEST = (2, 17)  # assumed for a server that states no version: TAG_NAME is a word in an image built by hand
HEALTH = "/apis/v2beta1/healthz"
TIMEOUT_S = 15.0
UI_KEYS = {"apiServerTagName", "apiServerReady"}  # the UI's server adds them to the answer of the API
DASHBOARD = "/pipeline"  # the path under which Kubeflow's central dashboard has the UI

VersionNumber = tuple[int, int]


class AccessError(KondenseError, OSError):
    """Kubeflow Pipelines cannot be reached, or refuses; the text names the remedy."""


@dataclasses.dataclass(frozen=True)
class Access:
    """Address and credentials of Kubeflow Pipelines.

    Attributes:
        endpoint: the address of its API or UI.
        namespace: of a profile, on a platform with profiles.
        token: a bearer token, if the platform requires one.
        service_account: of the runs; empty for the installation's.
    """

    endpoint: str = ENDPOINT
    namespace: str = ""
    token: str = dataclasses.field(default="", repr=False)
    service_account: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", self.endpoint.strip())  # a line feed from `echo`
        parts = urlsplit(self.endpoint)
        if "@" in parts.netloc:  # it would stand in every text
            raise InputError("endpoint must hold no name and password; pass a token by --token or KONDENSE_TOKEN.")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"endpoint must be http://host:port or https://..., but got {self.endpoint!r}.")


@dataclasses.dataclass(frozen=True)
class Connected:
    """A client of Kubeflow Pipelines, which has answered.

    Attributes:
        client: a ``kfp.Client``.
        namespace: the namespace of its calls; None on a platform without profiles.
        version: of the server; the newest if it states none.
        has_pages: whether the endpoint is the UI's, not the API's.
    """

    client: Any
    namespace: str | None
    version: VersionNumber = NEWEST
    has_pages: bool = True


def connect(access: Access) -> Connected:
    """Return a client of Kubeflow Pipelines, after a check that it answers and is new enough.

    Raises:
        AccessError: it is not, or requires a token or a namespace.
    """
    health = read_health(access)
    check_version(health, access.endpoint)
    several = bool(health.get("multi_user"))
    if several and not access.namespace:
        raise AccessError("this platform has profiles: give --namespace, the namespace of your profile.")
    import kfp

    with warnings.catch_warnings(), refusals_explained(access):
        warnings.simplefilter("ignore", FutureWarning)  # kfp warns at every start
        client = kfp.Client(
            host=access.endpoint.rstrip("/"),
            namespace=access.namespace or "kubeflow",
            existing_token=access.token or None,
        )
    limit_size(limit_time(client.pipelines.api_client))  # all of its services share it
    return Connected(
        client,
        access.namespace if several else None,
        stated_version(health) or NEWEST,
        has_pages=has_pages(health),
    )


def fetch_health(endpoint: str, token: str = "") -> tuple[bytes, bool]:
    """Return the content at the health address of an API or UI, and whether the request was redirected.

    Raises:
        ValueError: the endpoint is not an address.
        OSError: there is no answer, or a refusal.
    """
    url = endpoint.rstrip("/") + HEALTH
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    opener = urllib.request.build_opener(*handlers(Pace(TIMEOUT_S, silent_s=TIMEOUT_S)))
    with opener.open(request, timeout=TIMEOUT_S) as response:
        return response.read(1_000_000), response.url != url


def read_health(access: Access) -> dict[str, Any]:
    """Return the health of the API: ``tag_name`` or, through the UI, ``apiServerTagName``; ``multi_user``.

    Raises:
        AccessError: there is no answer, it is not Kubeflow Pipelines, or it requires a token.
    """
    moved = False
    try:
        content, moved = fetch_health(access.endpoint, access.token)
        health = json_value(content, "the answer")
    except urllib.error.HTTPError as error:
        raise AccessError(refusal(error.code, error.reason, access)) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            raise AccessError(
                f"{access.endpoint} must have a certificate that this machine trusts (SSL_CERT_FILE names more), but: "
                f"{error.reason}"
            ) from None
        raise AccessError(f"nothing answers at {access.endpoint} ({error.reason}): {HINT}") from None
    except (ValueError, OSError) as error:
        if isinstance(error, ValueError) and moved:
            raise AccessError(refusal(401, "it leads to a login page", access)) from None
        raise AccessError(f"{access.endpoint} is not Kubeflow Pipelines ({error}): {HINT}") from None
    if not isinstance(health, dict):
        raise AccessError(f"{access.endpoint} is not Kubeflow Pipelines (its health is {content[:40]!r}): {HINT}")
    return health


def has_pages(health: Mapping[str, Any]) -> bool:
    """Return whether a health is the answer of the UI's server, not of the API itself."""
    return bool(UI_KEYS & set(health))


def stated_version(health: Mapping[str, Any]) -> VersionNumber | None:
    """Return the version that a health states; None for words such as ``master`` and ``unknown``."""
    match = re.match(r"v?(\d+)\.(\d+)", str(health.get("tag_name") or health.get("apiServerTagName") or ""))
    return (int(match[1]), int(match[2])) if match else None


def check_version(health: Mapping[str, Any], endpoint: str) -> None:
    """Raise AccessError if the server is older than the pipelines require."""
    version = stated_version(health)
    if version and version < OLDEST:
        tag = health.get("tag_name") or health.get("apiServerTagName")
        raise AccessError(
            f"Kubeflow Pipelines must be {written(OLDEST)} or newer, but {endpoint} is {tag}: upgrade it "
            "(docs/deploy.md explains how)."
        )


def check_package(package: Package, version: VersionNumber) -> None:
    """Raise InputError if a server of that version would refuse a package with fields that it does not know."""
    unknown = package.unknown_before() if version < TELLS_MORE else []
    if unknown:
        raise InputError(
            f"{package.file.name} must have no {' and no '.join(unknown)}, which Kubeflow Pipelines {written(version)} "
            f"refuses: make it with kondense compile --resource kfp_version={written(version)}."
        )


def written(version: VersionNumber) -> str:
    """Return a version as text."""
    return ".".join(map(str, version))


def run_page(access: Access, connected: Connected, run_id: str) -> str:
    """Return the address of a run's page, or the way to open it if the endpoint has no pages.

    Kubeflow's central dashboard shows the UI in a frame, below ``/_``; it removes ``ns``, its namespace selector, and
    passes the rest on (kubeflow/dashboard, main-page.js).
    """
    page = f"#/runs/details/{run_id}"
    endpoint = access.endpoint.rstrip("/")
    if not connected.has_pages:
        return f"{FORWARD}, then {ENDPOINT}/{page}"
    if connected.namespace and endpoint.endswith(DASHBOARD):
        return f"{endpoint.removesuffix(DASHBOARD)}/_{DASHBOARD}/?ns={quote(connected.namespace)}{page}"
    return f"{endpoint}/{page}"


@contextlib.contextmanager
def refusals_explained(access: Access) -> Iterator[None]:
    """Turn the errors of kfp's client into an AccessError of one line."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        try:
            reason = str(json_value(error.body, "the answer")["message"])
        except (TypeError, ValueError, KeyError):
            reason = str(error.reason)
        raise AccessError(refusal(error.status, reason, access)) from None
    except urllib3.exceptions.HTTPError as error:
        raise AccessError(f"{access.endpoint} does not answer any more ({error}): {HINT}") from None


def refusal(code: int | None, reason: str, access: Access) -> str:
    """Return the meaning of a refusal and its remedy."""
    if code in (401, 403):
        verb = "refuses the token" if access.token else "requires a token"
        return (
            f"{access.endpoint} {verb} ({code} {reason}): give --token or KONDENSE_TOKEN, such as $(kubectl "
            f"-n {access.namespace or 'kubeflow'} create token default-editor --audience pipelines.kubeflow.org)."
        )
    if code == 404:
        return f"{access.endpoint} is not Kubeflow Pipelines ({code} {reason}): {HINT}"
    if "exceeded quota" in reason:
        return f"the namespace's quota is exceeded: {reason}; raise its ResourceQuota or end other runs."
    return f"Kubeflow Pipelines at {access.endpoint} answered {code}: {' '.join(reason.split())}"
