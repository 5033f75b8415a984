"""How Kubeflow Pipelines is reached, which version answers and where its pages are; errors say what to do next."""

import contextlib
import dataclasses
import json
import re
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from kondense.errors import InputError, KondenseError
from kondense.kubernetes_api import limit_time

from kondense_pipelines.cluster.package import Package
from kondense_pipelines.graphs.resources import OLDEST, TELLS_MORE

FORWARD = "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80"
ENDPOINT = "http://localhost:8080"  # where FORWARD leads
HINT = f"{FORWARD}, then --endpoint {ENDPOINT}"
NEWEST = (2, 17)  # what a server counts as that does not tell: TAG_NAME is a word where it was built by hand
HEALTH = "/apis/v2beta1/healthz"
TIMEOUT_S = 15.0
UI_KEYS = {"apiServerTagName", "apiServerReady"}  # the UI's server adds them to what it asks of the API
DASHBOARD = "/pipeline"  # the path under which Kubeflow's central dashboard has the UI

VersionNumber = tuple[int, int]


class AccessError(KondenseError, OSError):
    """Kubeflow Pipelines cannot be reached, or refuses; the text says what to do."""


@dataclasses.dataclass(frozen=True)
class Access:
    """How Kubeflow Pipelines is reached.

    Attributes:
        endpoint: the address of its API or UI.
        namespace: of a profile, on a platform with profiles.
        token: a bearer token, where the platform asks for one.
        service_account: of the runs; empty for the installation's.
    """

    endpoint: str = ENDPOINT
    namespace: str = ""
    token: str = dataclasses.field(default="", repr=False)
    service_account: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"endpoint must be http://host:port or https://..., but got {self.endpoint!r}.")


@dataclasses.dataclass(frozen=True)
class Connected:
    """A client of Kubeflow Pipelines that was found to be there.

    Attributes:
        client: a ``kfp.Client``.
        namespace: what its calls name; None on a platform without profiles.
        version: of the server; the newest where it does not tell.
        has_pages: whether the endpoint is the UI's, not the API's own.
    """

    client: Any
    namespace: str | None
    version: VersionNumber = NEWEST
    has_pages: bool = True


def connect(access: Access) -> Connected:
    """Return a client of Kubeflow Pipelines, found to be there and new enough.

    Raises:
        AccessError: it is not, or wants a token or a namespace.
    """
    health = read_health(access)
    check_version(health, access.endpoint)
    several = bool(health.get("multi_user"))
    if several and not access.namespace:
        raise AccessError("this platform has profiles: give --namespace, the namespace of yours.")
    import kfp

    with warnings.catch_warnings(), refusals_explained(access):
        warnings.simplefilter("ignore", FutureWarning)  # kfp greets every user with one
        client = kfp.Client(
            host=access.endpoint.rstrip("/"),
            namespace=access.namespace or "kubeflow",
            existing_token=access.token or None,
        )
    limit_time(client.pipelines.api_client)  # all of its services share it
    return Connected(
        client,
        access.namespace if several else None,
        told_version(health) or NEWEST,
        has_pages=has_pages(health),
    )


def fetch_health(endpoint: str, token: str = "") -> tuple[bytes, bool]:
    """Return what answers at the health's address of an API or UI, and whether it was another address that answered.

    Raises:
        ValueError: the endpoint is no address.
        OSError: nothing answers, or it refuses.
    """
    url = endpoint.rstrip("/") + HEALTH
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return response.read(1_000_000), response.url != url


def read_health(access: Access) -> dict[str, Any]:
    """Return what the API tells of itself: ``tag_name`` or, asked through the UI, ``apiServerTagName``; ``multi_user``.

    Raises:
        AccessError: nothing answers there, something else does, or it wants a token.
    """
    moved = False
    try:
        content, moved = fetch_health(access.endpoint, access.token)
        health = json.loads(content)
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
    """Tell whether a health is told by the UI's server, not by the API itself."""
    return bool(UI_KEYS & set(health))


def told_version(health: Mapping[str, Any]) -> VersionNumber | None:
    """Return the version that a health names; None for names such as ``master`` and ``unknown``."""
    match = re.match(r"v?(\d+)\.(\d+)", str(health.get("tag_name") or health.get("apiServerTagName") or ""))
    return (int(match[1]), int(match[2])) if match else None


def check_version(health: Mapping[str, Any], endpoint: str) -> None:
    """Raise AccessError if the API says that it is older than what the pipelines need."""
    version = told_version(health)
    if version and version < OLDEST:
        told = health.get("tag_name") or health.get("apiServerTagName")
        raise AccessError(
            f"Kubeflow Pipelines must be {written(OLDEST)} or newer, but {endpoint} is {told}: upgrade it "
            "(docs/deploy.md explains how)."
        )


def check_package(package: Package, version: VersionNumber) -> None:
    """Raise ValueError if a server of that version would refuse a package for what it does not know."""
    found = package.unknown_before() if version < TELLS_MORE else []
    if found:
        raise InputError(
            f"{package.file.name} must have no {' and no '.join(found)}, which Kubeflow Pipelines {written(version)} "
            f"refuses: make it with kondense compile --resource kfp_version={written(version)}."
        )


def written(version: VersionNumber) -> str:
    """Return a version as it is written."""
    return ".".join(map(str, version))


def run_page(access: Access, connected: Connected, run_id: str) -> str:
    """Return the address of a run's page, or what opens it where the endpoint has no pages.

    Kubeflow's central dashboard shows the UI in a frame, below ``/_``; it keeps ``ns``, its namespace selector, to
    itself and hands the rest on (kubeflow/dashboard, main-page.js).
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
    """Turn what kfp's client raises into an AccessError of one line."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        try:
            told = str(json.loads(error.body)["message"])
        except (TypeError, ValueError, KeyError):
            told = str(error.reason)
        raise AccessError(refusal(error.status, told, access)) from None
    except urllib3.exceptions.HTTPError as error:
        raise AccessError(f"{access.endpoint} does not answer any more ({error}): {HINT}") from None


def refusal(code: int | None, told: str, access: Access) -> str:
    """Return what a refusal means and what to do."""
    if code in (401, 403):
        given = "refuses the token" if access.token else "wants a token"
        return (
            f"{access.endpoint} {given} ({code} {told}): give --token or KONDENSE_TOKEN, such as $(kubectl "
            f"-n {access.namespace or 'kubeflow'} create token default-editor --audience pipelines.kubeflow.org)."
        )
    if code == 404:
        return f"{access.endpoint} is not Kubeflow Pipelines ({code} {told}): {HINT}"
    if "exceeded quota" in told:
        return f"the namespace's quota is exceeded: {told}; raise its ResourceQuota or end other runs."
    return f"Kubeflow Pipelines at {access.endpoint} answered {code}: {' '.join(told.split())}"
