"""Connect to the Kubernetes API from a pod or a laptop, with limits of time and size."""

import os
from collections.abc import Mapping
from typing import Any

from kondense.errors import KondenseError
from kondense.pace import Pace, keep

TIMEOUT_S = (5.0, 30.0)  # to connect, to answer; without limits one lost packet delays a Job for minutes
PACE = Pace(longest_s=300.0, silent_s=TIMEOUT_S[1])  # of a whole answer
MOST_BYTES = 2**26  # of an answer; 200 Trials, a page, have some hundred kB, and a pod's log has 10 MiB


class NoClusterError(KondenseError, OSError):
    """Neither a pod's account nor a kubeconfig exists."""


def connect(environment: Mapping[str, str] = os.environ) -> Any:
    """Return a ``kubernetes.client.ApiClient`` of the pod's cluster, or of the kubeconfig's current context.

    It makes one attempt per call, within ``TIMEOUT_S``, and takes ``MOST_BYTES`` of an answer; the caller retries.

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
    return limit_size(limit_time(client.ApiClient(configuration)))


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


def limit_size(client: Any, most_bytes: int = MOST_BYTES, pace: Pace = PACE) -> Any:
    """Limit the size of every answer to a generated API client, and its time; return the client, not yet connected.

    A larger one, once decompressed, or a slower one is an ``urllib3.exceptions.HTTPError``, as a broken connection is.
    """
    import urllib3

    pool = client.rest_client.pool_manager
    request = pool.request
    keep(pool, pace)

    def limited(method: str, url: str, *, preload_content: bool = True, **options: Any) -> Any:
        answer = request(method, url, preload_content=False, **options)
        if not preload_content:
            return answer
        parts, size = [], 0
        while part := answer.read1(2**16):
            parts.append(part)
            size += len(part)
            if size > most_bytes:
                answer.close()
                raise urllib3.exceptions.HTTPError(f"the answer must have at most {most_bytes:,} bytes, but has more")
        answer.release_conn()
        headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-encoding"}
        return urllib3.HTTPResponse(b"".join(parts), headers, status=answer.status, reason=answer.reason)

    pool.request = limited
    return client
