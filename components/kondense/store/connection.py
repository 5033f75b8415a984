"""The connection to a bucket's endpoint: address, credentials, retries."""

import contextlib
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import certifi
import urllib3

from kondense.errors import InputError
from kondense.pace import Pace, keep
from kondense.store.endpoint import read_endpoint
from kondense.store.store import StoreError

DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 4.0)  # a restarted server answers within 12 seconds
PATIENCE_S = 60.0  # no attempt starts later
TIMEOUT = urllib3.Timeout(connect=5.0, read=60.0)
PACE = Pace(longest_s=300.0, bytes_per_s=2**14)
OBJECTS = (200, 204, 206)  # HTTP statuses of what may be an object, which its reader bounds
MOST_BYTES = 2**26  # of any other answer; a page of a listing has 1,000 keys of 1 KiB
PASSING = (429, 500, 502, 503, 504)  # HTTP statuses that a later attempt may avoid
REQUIRED = ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")
LOOPBACK = re.compile(r"(localhost|127\.[\d.]+|\[::1\])(:\d+)?", re.IGNORECASE | re.ASCII)
KEY = re.compile(r"[!-~]+")
REGION = re.compile(r"[A-Za-z0-9_-]{1,63}")


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

    Blanks and line feeds around a value, as ``echo`` leaves them in a Secret, are taken off.

    Raises:
        StoreError: one of the first three is missing, or a value is malformed; no text shows a key.
    """
    values = {name: environment.get(name, "").strip() for name in (*REQUIRED, "MINIO_SECURE", "MINIO_REGION")}
    values["MINIO_SECRET_KEY"] = environment.get("MINIO_SECRET_KEY", "").strip("\r\n")  # may begin or end with a blank
    if missing := [name for name in REQUIRED if not values[name]]:
        raise StoreError(
            f"a bucket needs {', '.join(REQUIRED)} in the environment, but {', '.join(missing)} is not set"
            " (on a cluster they come from the Secret mlpipeline-minio-artifact in the namespace of the run)."
        )
    if not KEY.fullmatch(values["MINIO_ACCESS_KEY"]):
        raise StoreError("MINIO_ACCESS_KEY must be printable ASCII without blanks, but has other characters.")
    secure = values["MINIO_SECURE"].lower()
    if secure not in ("", "true", "false"):
        raise StoreError(f"MINIO_SECURE must be true or false, but got {secure!r}.")
    try:
        scheme, endpoint = read_endpoint("MINIO_ENDPOINT", values["MINIO_ENDPOINT"])
    except InputError as error:
        raise StoreError(str(error)) from None
    if scheme and secure and (scheme == "https") != (secure == "true"):
        raise StoreError(f"MINIO_SECURE must fit MINIO_ENDPOINT, but is {secure} for {scheme}://{endpoint}.")
    default = scheme == "https" if scheme else not LOOPBACK.fullmatch(endpoint)
    if (region := values["MINIO_REGION"]) and not REGION.fullmatch(region):
        raise StoreError(f"MINIO_REGION must be a name such as us-east-1, but got {region[:40]!r}.")
    return Connection(
        endpoint=endpoint,
        access_key=values["MINIO_ACCESS_KEY"],
        secret_key=values["MINIO_SECRET_KEY"],
        secure=secure == "true" if secure else default,
        region=region or None,
    )


_REQUESTS_LEFT: ContextVar[int | None] = ContextVar("requests_left", default=None)


@contextlib.contextmanager
def requests_limited(most: int) -> Iterator[Callable[[], None]]:
    """Allow this thread ``most`` requests in the block, a further one is a ValueError; what it yields renews them."""

    def renew() -> None:
        _REQUESTS_LEFT.set(most)

    renew()
    try:
        yield renew
    finally:
        _REQUESTS_LEFT.set(None)


class UnreachableError(urllib3.exceptions.HTTPError):
    """No attempt reached the endpoint, or none can."""


class PatientPool(urllib3.PoolManager):
    """An HTTP client that retries a request with growing delays while the endpoint is unreachable or fails."""

    def __init__(self, delays_s: tuple[float, ...]) -> None:
        ca_certs = os.environ.get("SSL_CERT_FILE") or certifi.where()
        super().__init__(timeout=TIMEOUT, maxsize=10, cert_reqs="CERT_REQUIRED", ca_certs=ca_certs)
        keep(self, PACE)
        self.delays_s = delays_s

    def urlopen(  # type: ignore[override]  # as PoolManager declares it
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> Any:
        """Send one request, as urllib3 does, and return the last answer.

        Raises:
            UnreachableError: there was no answer, or the connection cannot become secure.
            ValueError: see ``requests_limited``.
        """
        if (left := _REQUESTS_LEFT.get()) is not None:
            if not left:
                raise ValueError("more requests than are allowed, as of a listing without end")
            _REQUESTS_LEFT.set(left - 1)
        # A retry is safe: an S3 write puts a complete object or part, and its body is bytes, not a stream.
        options["retries"], whole = False, options.pop("preload_content", True)
        deadline_s = time.monotonic() + PATIENCE_S
        for delay_s in (*self.delays_s, None):
            last = delay_s is None or time.monotonic() > deadline_s
            try:
                response = super().urlopen(method, url, redirect, preload_content=False, **options)
                if whole:
                    response = _whole(response, method)
            except urllib3.exceptions.HTTPError as error:
                # A wrong certificate or address stays wrong. A name may not: DNS in a cluster follows its Services.
                if last or isinstance(error, urllib3.exceptions.SSLError | urllib3.exceptions.LocationValueError):
                    raise UnreachableError(str(error)) from error
            else:
                if last or response.status not in PASSING:
                    return response if whole or response.status in OBJECTS else _whole(response, method)
                response.close()
            time.sleep(delay_s or 0.0)
        raise AssertionError("the last attempt returns or raises")


def _whole(answer: Any, method: str) -> Any:
    """Return an answer with its body in memory, decompressed; an HTTPError if that has more than MOST_BYTES."""
    body, left_out = io.BytesIO(), {"content-encoding", "transfer-encoding"}
    if method != "HEAD":
        left_out.add("content-length")
    while part := answer.read1(2**16):
        body.write(part)
        if body.tell() > MOST_BYTES:
            answer.close()
            raise urllib3.exceptions.HTTPError(f"an answer must have at most {MOST_BYTES:,} bytes, but has more")
    answer.release_conn()
    body.seek(0)
    headers = urllib3.HTTPHeaderDict()
    for name, value in answer.headers.iteritems():
        if name.lower() not in left_out:
            headers.add(name, value)
    return urllib3.HTTPResponse(
        body, headers, status=answer.status, reason=answer.reason, request_method=method, request_url=answer.url
    )
