"""Connect to the Kubernetes API from a pod or a laptop, with time limits."""

import os
from collections.abc import Mapping
from typing import Any

from kondense.errors import KondenseError

TIMEOUT_S = (5.0, 30.0)  # to connect, to answer; without limits one lost packet delays a Job for minutes


class NoClusterError(KondenseError, OSError):
    """Neither a pod's account nor a kubeconfig exists."""


def connect(environment: Mapping[str, str] = os.environ) -> Any:
    """Return a ``kubernetes.client.ApiClient`` of the pod's cluster, or of the kubeconfig's current context.

    It makes one attempt per call, within ``TIMEOUT_S``; the caller retries.

    Raises:
        NoClusterError: neither exists.
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
    """Limit the time of every call of a generated API client (Kubernetes, Kubeflow Pipelines); return the client.

    Args:
        client: an object with ``request``, whose ``_request_timeout`` is None unless a call gives it.
        timeout_s: limits to connect and to answer.
    """
    request = client.request

    def limited(*arguments: Any, _request_timeout: Any = None, **options: Any) -> Any:
        return request(*arguments, _request_timeout=_request_timeout or timeout_s, **options)

    client.request = limited
    return client
