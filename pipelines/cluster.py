"""Kubeflow Pipelines from here: start a run, keep a recurring run; errors say what to do next."""

import contextlib
import dataclasses
import io
import json
import re
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from components.config import check_choice, parse
from components.kubernetes_api import limit_time
from pipelines.register import EXPERIMENT, Schedule, register, schedule_run

ENDPOINT = "http://localhost:8080"
HINT = "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80, then --endpoint http://localhost:8080"
OLDEST = (2, 14)
HEALTH = "/apis/v2beta1/healthz"
TIMEOUT_S = 15.0
# KFP's parameter types -> ours; the others are JSON.
KINDS: Mapping[str, type] = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool}


class AccessError(OSError):
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
            raise ValueError(f"endpoint must be http://host:port or https://..., but got {self.endpoint!r}.")


@dataclasses.dataclass(frozen=True)
class Connected:
    """A ``kfp.Client``, and the namespace that its calls name: none on a platform without profiles."""

    client: Any
    namespace: str | None


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
    return Connected(client, access.namespace if several else None)


def read_health(access: Access) -> dict[str, Any]:
    """Return what the API tells of itself: ``tag_name`` or, asked through the UI, ``apiServerTagName``; ``multi_user``.

    Raises:
        AccessError: nothing answers there, something else does, or it wants a token.
    """
    url = access.endpoint.rstrip("/") + HEALTH
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {access.token}"} if access.token else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            content = response.read(1_000_000)
            moved = response.url != url
        health = json.loads(content)
    except urllib.error.HTTPError as error:
        raise AccessError(_refusal(error.code, error.reason, access)) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            raise AccessError(
                f"{access.endpoint} must have a certificate that this machine trusts (SSL_CERT_FILE names more), but: "
                f"{error.reason}"
            ) from None
        raise AccessError(f"nothing answers at {access.endpoint} ({error.reason}): {HINT}") from None
    except (ValueError, OSError) as error:
        if isinstance(error, ValueError) and moved:
            raise AccessError(_refusal(401, "it leads to a login page", access)) from None
        raise AccessError(f"{access.endpoint} is not Kubeflow Pipelines ({error}): {HINT}") from None
    if not isinstance(health, dict):
        raise AccessError(f"{access.endpoint} is not Kubeflow Pipelines (its health is {content[:40]!r}): {HINT}")
    return health


def check_version(health: Mapping[str, Any], endpoint: str) -> None:
    """Raise AccessError if the API says that it is older than what the pipelines need."""
    told = str(health.get("tag_name") or health.get("apiServerTagName") or "")
    match = re.match(r"v?(\d+)\.(\d+)", told)
    if match and (int(match[1]), int(match[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise AccessError(
            f"Kubeflow Pipelines must be {oldest} or newer, but {endpoint} is {told}: upgrade it "
            "(the README's chapter Deploy says how)."
        )


def read_parameters(package: Path, texts: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` texts as the parameters that a compiled pipeline declares.

    Raises:
        ValueError: another form, an unknown name (the right ones are listed), or a text that is no such value.
    """
    declared = declared_parameters(package)
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--param must be name=value, but got {text!r}.")
        check_choice("the name in --param", name, tuple(declared))
        kind = KINDS.get(declared[name]["parameterType"])
        try:
            found[name] = parse(name, kind, value) if kind else json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} must be JSON, but: {error}.") from None
    return found


def declared_parameters(package: Path) -> dict[str, Any]:
    """Return the parameters of a compiled pipeline: type, default and description by name.

    Raises:
        ValueError: the file is no compiled pipeline.
    """
    try:
        spec = next(yaml.load_all(package.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        parameters: dict[str, Any] = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    except (yaml.YAMLError, UnicodeDecodeError, StopIteration, KeyError, TypeError, AttributeError):
        raise ValueError(f"{package} must be a compiled pipeline (kondense compile makes them), but is none.") from None
    return parameters


def submit(access: Access, package: Path, texts: Iterable[str] = (), *, name: str = "") -> Iterator[str]:
    """Start a run of a compiled pipeline and say where it is.

    Args:
        access: how the platform is reached.
        package: the compiled pipeline.
        texts: parameters, ``name=value``.
        name: of the run; the pipeline's by default.

    Raises:
        ValueError: a parameter is wrong.
        AccessError: the platform cannot be reached, or refuses.
    """
    parameters = read_parameters(package, texts)
    connected = connect(access)
    with refusals_explained(access), contextlib.redirect_stdout(io.StringIO()):  # kfp prints links of its own
        experiment = connected.client.create_experiment(EXPERIMENT, namespace=connected.namespace)
        run = connected.client.run_pipeline(
            experiment.experiment_id,
            name or package.stem,
            pipeline_package_path=str(package),
            params=parameters,
            service_account=access.service_account or None,
        )
    yield f"run {run.display_name} ({run.run_id}) is started: {access.endpoint.rstrip('/')}/#/runs/details/{run.run_id}"


def schedule(access: Access, package: Path, wanted: Schedule, revision: str) -> Iterator[str]:
    """Upload a compiled pipeline and make its recurring run, or replace the one that differs; say what was done.

    Called again with the same arguments, it changes nothing.

    Args:
        access: how the platform is reached.
        package: the compiled pipeline.
        wanted: the recurring run that should be there.
        revision: of the source that the package was compiled from.

    Raises:
        AccessError: the platform cannot be reached, or refuses.
    """
    connected = connect(access)
    with refusals_explained(access):
        registered = register(connected.client, package, revision, connected.namespace)
        yield f"version {registered.version}: {'uploaded' if registered.new else 'it is there'}"
        account = access.service_account or None
        yield from schedule_run(
            connected.client, wanted, registered, namespace=connected.namespace, service_account=account
        )


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
        raise AccessError(_refusal(error.status, told, access)) from None
    except urllib3.exceptions.HTTPError as error:
        raise AccessError(f"{access.endpoint} does not answer any more ({error}): {HINT}") from None


def _refusal(code: int | None, told: str, access: Access) -> str:
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
