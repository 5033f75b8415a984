"""The Kubernetes API from a pod or a laptop, and time limits for clients that have none."""

import os
from collections.abc import Mapping
from typing import Any

from kondense.errors import KondenseError

TIMEOUT_S = (5.0, 30.0)  # to connect, to answer; without them one lost packet holds a Job for minutes


class NoClusterError(KondenseError, OSError):
    """There is neither a pod's account nor a kubeconfig."""


def connect(environment: Mapping[str, str] = os.environ) -> Any:
    """Return a ``kubernetes.client.ApiClient`` of the pod's cluster, or of the kubeconfig's current context.

    It answers each call once, within ``TIMEOUT_S``: repeating is its user's.

    Raises:
        NoClusterError: there is neither.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in environment:
            config.load_incluster_config(configuration)
        else:
            config.load_kube_config(environment.get("KUBECONFIG") or None, client_configuration=configuration)
    except config.ConfigException as error:
        raise NoClusterError(str(error).rstrip(".")) from None
    configuration.retries = False
    return limit_time(client.ApiClient(configuration))


def limit_time(client: Any, timeout_s: tuple[float, float] = TIMEOUT_S) -> Any:
    """Let every call of a generated API client (Kubernetes', Kubeflow Pipelines') end in time; return the client.

    Args:
        client: has ``request``, whose ``_request_timeout`` is None unless a call gives it.
        timeout_s: to connect, and to answer.
    """
    request = client.request

    def limited(*arguments: Any, _request_timeout: Any = None, **options: Any) -> Any:
        return request(*arguments, _request_timeout=_request_timeout or timeout_s, **options)

    client.request = limited
    return client
