"""What the set-up Jobs have in common: the Kubernetes client, and one clear line when they fail."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from kondense import failure, kubernetes_api
from kondense.errors import InputError


def kubernetes_client() -> Any:
    """Return the client of the cluster that this pod runs in, or of the current context of a kubeconfig.

    Raises:
        ValueError: there is neither.
    """
    try:
        return kubernetes_api.connect()
    except kubernetes_api.NoClusterError as error:
        raise InputError(f"a cluster must be reachable from this pod or by a kubeconfig, but: {error}") from None


def namespace() -> str:
    """Return the namespace that NAMESPACE names; kubeflow without it."""
    return os.environ.get("NAMESPACE") or "kubeflow"


def run(task: Callable[[], Iterable[str]]) -> int:
    """Print what ``task`` says it did and return 0; after an expected error print one line and return 1."""
    import urllib3
    from kubernetes.client import ApiException

    try:
        for line in task():
            print(line, flush=True)
    except ApiException as error:
        return _fail(f"the Kubernetes API answered {error.status} {error.reason}: {_message(error)}")
    except (ValueError, OSError, urllib3.exceptions.HTTPError) as error:
        return _fail(error)
    return 0


def _message(error: Any) -> str:
    """Return the API's own words: the ``message`` of a Status object."""
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.body or "")[:300]


def _fail(error: object) -> int:
    failure.report_failure(error)
    return 1
