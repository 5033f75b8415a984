"""The frame of the set-up Jobs: the Kubernetes client, and one line for an error."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from kondense import failure, kubernetes_api
from kondense.errors import EXPECTED, InputError, exit_code_of
from kondense.json_text import json_value


def kubernetes_client() -> Any:
    """Return the client of the cluster that this pod runs in, or of the current context of a kubeconfig.

    Raises:
        InputError: neither exists.
    """
    try:
        return kubernetes_api.connect()
    except kubernetes_api.NoClusterError as error:
        raise InputError(f"a cluster must be reachable from this pod or by a kubeconfig, but: {error}") from None


def namespace() -> str:
    """Return the namespace in NAMESPACE; by default kubeflow."""
    return os.environ.get("NAMESPACE") or "kubeflow"


def run(task: Callable[[], Iterable[str]]) -> int:
    """Print the lines of ``task`` and return 0; after an expected error print one line and return its exit code."""
    import urllib3
    from kubernetes.client import ApiException

    try:
        for line in task():
            print(line, flush=True)
    except ApiException as error:
        failure.report_failure(f"the Kubernetes API answered {error.status} {error.reason}: {_message(error)}")
    except (*EXPECTED, urllib3.exceptions.HTTPError) as error:
        failure.report_failure(error)
        return exit_code_of(error)
    else:
        return 0
    return 1


def _message(error: Any) -> str:
    """Return the message of the API: ``message`` of a Status object."""
    try:
        return str(json_value(error.body, "the answer")["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.body or "")[:300]
