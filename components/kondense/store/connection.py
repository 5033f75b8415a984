"""The connection to a bucket's endpoint: address, credentials, retries."""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import certifi
import urllib3

from kondense.store.store import StoreError

DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 4.0)  # a restarted server answers within 12 seconds
PATIENCE_S = 60.0  # no attempt starts later
TIMEOUT = urllib3.Timeout(connect=5.0, read=60.0)
PASSING = (429, 500, 502, 503, 504)  # HTTP statuses that a later attempt may avoid
REQUIRED = ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")
LOOPBACK = re.compile(r"(localhost|127\.[\d.]+|\[::1\])(:\d+)?")


@dataclass(frozen=True)
class Connection:
    """An endpoint, such as ``127.0.0.1:9000``, and its credentials, which ``repr`` omits."""

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    secure: bool
    region: str | None = None

    @property
    def url(self) -> str:
        """The endpoint with its scheme."""
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"


def connection_from_environment(environment: Mapping[str, str]) -> Connection:
    """Read MINIO_ENDPOINT, MINIO_ACCESS_KEY, MINIO_SECRET_KEY, MINIO_SECURE and MINIO_REGION.

    Raises:
        StoreError: one of the first three is missing, or MINIO_SECURE is neither true nor false.
    """
    if missing := [name for name in REQUIRED if not environment.get(name)]:
        raise StoreError(
            f"a bucket needs {', '.join(REQUIRED)} in the environment, but {', '.join(missing)} is not set"
            " (on a cluster they come from the Secret mlpipeline-minio-artifact in the namespace of the run)."
        )
    scheme, _, endpoint = environment["MINIO_ENDPOINT"].rstrip("/").rpartition("://")
    secure = environment.get("MINIO_SECURE", "").lower()
    if secure not in ("", "true", "false"):
        raise StoreError(f"MINIO_SECURE must be true or false, but got {secure!r}.")
    default = scheme == "https" if scheme else not LOOPBACK.fullmatch(endpoint)
    return Connection(
        endpoint=endpoint,
        access_key=environment["MINIO_ACCESS_KEY"],
        secret_key=environment["MINIO_SECRET_KEY"],
        secure=secure == "true" if secure else default,
        region=environment.get("MINIO_REGION") or None,
    )


class PatientPool(urllib3.PoolManager):
    """An HTTP client that retries a request with growing delays while the endpoint is unreachable or fails."""

    def __init__(self, delays_s: tuple[float, ...]) -> None:
        ca_certs = os.environ.get("SSL_CERT_FILE") or certifi.where()
        super().__init__(timeout=TIMEOUT, maxsize=10, cert_reqs="CERT_REQUIRED", ca_certs=ca_certs)
        self.delays_s = delays_s

    def urlopen(  # type: ignore[override]  # as PoolManager declares it
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> Any:
        """Send one request, as urllib3 does; the last failure is returned or raised unchanged."""
        # A retry is safe: an S3 write puts a complete object or part, and its body is bytes, not a stream.
        options["retries"] = False
        deadline_s = time.monotonic() + PATIENCE_S
        for delay_s in self.delays_s:
            if time.monotonic() > deadline_s:
                break
            try:
                response = super().urlopen(method, url, redirect, **options)
            except urllib3.exceptions.SSLError:
                raise
            except urllib3.exceptions.HTTPError:
                time.sleep(delay_s)
                continue
            if response.status not in PASSING:
                return response
            response.drain_conn()
            response.release_conn()
            time.sleep(delay_s)
        return super().urlopen(method, url, redirect, **options)
