"""A store in a bucket of MinIO or any S3 endpoint.

The SHA-256 of every object is stored in its metadata and checked at every read.
"""

import contextlib
import errno
import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, TypeVar
from xml.etree import ElementTree

import urllib3
from minio import Minio
from minio.datatypes import Object
from minio.error import MinioException, S3Error

from kondense.errors import InputError, KondenseError
from kondense.files import machine_memory, sha256
from kondense.pace import SlowError
from kondense.store.connection import DELAYS_S, Connection, PatientPool, UnreachableError, requests_limited
from kondense.store.lease import hold
from kondense.store.local import replacing
from kondense.store.store import (
    ExistsError,
    Lease,
    NotFoundError,
    Store,
    StoreError,
    TooLargeError,
    check_key,
    damaged,
    visible,
)
from kondense.store.tickets import ObjectTickets

T = TypeVar("T")

DIGEST = "sha256"
PART_BYTES = 16 * 2**20  # larger objects are uploaded in parts of this size
CHUNK_BYTES = 2**20
MOST_ENTRIES = 10_000_000  # of a listing
MOST_EMPTY = 100  # pages of a listing one after another that have no entries and say that more follow
MISSING = ("NoSuchKey", "NoSuchBucket")
REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "XAdminUserNotFound")
OTHER_REGION = ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect")
FULL = ("XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded")
LOST_PARTS = ("NoSuchUpload", "InvalidPart")  # or the server joined them, but its answer was lost
CLOCK = ("RequestTimeTooSkewed", "RequestExpired")
MADE_BY_ANOTHER = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")

BUCKET = re.compile(r"(?!.*(\.\.|\.-|-\.))(?!(\d{1,3}\.){3}\d{1,3}$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# What the client raises while it parses an answer: ParseError, a missing element, a number or date that is none.
DAMAGED = (ElementTree.ParseError, ValueError)
MARKS = ("etag", "x-amz-", "x-goog-")  # a store's answers about an object have such headers, a proxy's page has none
SIGNED = re.compile(r"((?:Signature|Credential|Security-Token|AccessKeyId)[\"']?[=:>]\s*)[^\s&,;<]+", re.IGNORECASE)


class IncompleteError(StoreError):
    """An object was transferred incompletely; the transfer can be retried."""


class ObjectStore(Store):
    """A store whose keys are the objects of a bucket below a prefix."""

    def __init__(
        self,
        uri: str,
        *,
        bucket: str,
        prefix: str = "",
        connection: Connection,
        delays_s: tuple[float, ...] = DELAYS_S,
        lease_s: float = 30.0,
    ) -> None:
        """Describe the store; no request is sent yet.

        Args:
            uri: address of the root, for messages and receipts.
            bucket: name of the bucket; created at the first write if it is missing and the credentials allow it.
            prefix: the folder in the bucket that is the root.
            connection: endpoint and credentials.
            delays_s: pauses between the attempts while the endpoint is unreachable or fails.
            lease_s: see ``lease.hold``.

        Raises:
            InputError: ``bucket`` is not a valid name.
        """
        if not BUCKET.fullmatch(bucket):
            raise InputError(
                f"a bucket's name must be 3 to 63 of a-z, 0-9, dot and dash, no IP address, but got {bucket[:70]!r}."
            )
        self.uri = uri.rstrip("/")
        self.bucket = bucket
        self.prefix = prefix
        self.connection = connection
        self.delays_s = delays_s
        self.lease_s = lease_s
        try:
            self.client = Minio(
                connection.endpoint,
                access_key=connection.access_key,
                secret_key=connection.secret_key,
                secure=connection.secure,
                region=connection.region,
                http_client=PatientPool(delays_s),
            )
        except ValueError as error:  # rules of Amazon's own hosts
            raise StoreError(f"MINIO_ENDPOINT cannot be {connection.url}: {error}.") from None

    def read(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """See Store."""
        check_key(key)
        content, most = io.BytesIO(), machine_memory() if limit_bytes is None else limit_bytes
        self._call(key, lambda: self._fetch(key, content, most))
        return content.getvalue()

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """See Store."""
        check_key(key)
        if not if_absent:
            self.put(key, data)
            return
        # MinIO honours If-None-Match at a PUT, but the S3 gateway in JuiceFS 1.4 (MinIO of 2021) ignores it.
        with self.exclusive(key) as lease:
            if self.exists(key):
                raise ExistsError(f"{self.address(key)} exists already.")
            lease.check()
            self.put(key, data)

    def exists(self, key: str) -> bool:
        """See Store."""
        check_key(key)
        try:
            self._call(key, lambda: self._of_store(self.client.stat_object(self.bucket, self._name(key)).metadata))
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> list[str]:
        """See Store."""
        return visible(key for key, _ in self.entries(prefix.strip("/")))

    def delete(self, key: str) -> None:
        """See Store."""
        check_key(key)
        self.remove(key)

    def upload_file(self, key: str, path: Path) -> None:
        """See Store."""
        check_key(key)
        with path.open("rb") as file:
            self._put(key, file, path.stat().st_size, sha256(path))

    def download_file(self, key: str, path: Path) -> None:
        """See Store."""
        check_key(key, reading=True)
        with replacing(path) as file:
            self._call(key, lambda: self._fetch(key, file))

    @contextlib.contextmanager
    def exclusive(self, key: str, *, wait_s: float = 120.0) -> Iterator[Lease]:
        """See Store."""
        check_key(key)
        with hold(ObjectTickets(self, key), self.address(key), lease_s=self.lease_s, wait_s=wait_s) as lease:
            yield lease

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under any ``key``, reserved names included."""
        self._put(key, io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest())

    def remove(self, key: str) -> None:
        """Remove any ``key``, reserved names included."""
        with contextlib.suppress(NotFoundError):
            self._call(key, lambda: self.client.remove_object(self.bucket, self._name(key)))

    def entries(self, folder: str) -> Iterator[tuple[str, Object]]:
        """Yield every key in ``folder`` and below, reserved names included, with its entry of the listing."""
        start = self._name(folder).rstrip("/") + "/" if folder or self.prefix else ""
        skip = len(self.prefix) + 1 if self.prefix else 0
        try:
            entries = self._call(folder, lambda: self._listed(start))
        except NotFoundError:
            return  # no bucket yet
        for entry in entries:
            yield (entry.object_name or "")[skip:], entry

    def _listed(self, start: str) -> tuple[Object, ...]:
        found: dict[str, Object] = {}
        with requests_limited(MOST_EMPTY) as renew:
            for entry in self.client.list_objects(self.bucket, start, recursive=True):
                name = entry.object_name or ""
                if name in found or len(found) == MOST_ENTRIES:  # its pages have no end
                    raise ValueError("a listing without end")  # one of DAMAGED
                found[name] = entry
                renew()
        return tuple(found.values())

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _put(self, key: str, file: BinaryIO, size: int, digest: str) -> None:
        def put() -> None:
            file.seek(0)
            written = self.client.put_object(
                self.bucket, self._name(key), file, size, metadata={DIGEST: digest}, part_size=PART_BYTES
            )
            if not written.etag:  # a proxy's page, or a 200 whose body is an error: the client takes both for success
                raise ValueError("no ETag")  # one of DAMAGED

        try:
            self._call(key, put)
        except NotFoundError:
            self._call("", self._make_bucket)
            self._call(key, put)

    def _make_bucket(self) -> None:
        try:
            self.client.make_bucket(self.bucket)
        except S3Error as error:
            if error.code not in MADE_BY_ANOTHER:
                raise

    def _fetch(self, key: str, file: BinaryIO, limit_bytes: int | None = None) -> None:
        """Write one object to ``file`` and check it."""
        file.seek(0)
        file.truncate()
        response = self.client.get_object(self.bucket, self._name(key))
        hasher = hashlib.sha256()
        try:
            self._of_store(response.headers)
            for chunk in response.stream(CHUNK_BYTES):
                hasher.update(chunk)
                file.write(chunk)
                if limit_bytes is not None and file.tell() > limit_bytes:
                    raise TooLargeError(self.address(key), limit_bytes)
        except urllib3.exceptions.HTTPError as error:
            if isinstance(error.__cause__, SlowError):  # not again: it took minutes
                raise StoreError(f"reading {self.address(key)} {error.__cause__}.") from error
            raise IncompleteError(f"{self.address(key)} broke off while it was read: {self._line(error)}.") from error
        finally:
            response.close()
            response.release_conn()
        expected = response.headers.get(f"x-amz-meta-{DIGEST}")
        if expected and hasher.hexdigest() != expected:
            raise damaged(self.address(key), expected, hasher.hexdigest())

    def _of_store(self, headers: Mapping[str, str] | None) -> None:
        """Refuse the headers of a 200 that no object store has sent."""
        if not any(name.lower().startswith(MARKS) for name in headers or ()):
            raise ValueError("no header of a store")  # one of DAMAGED

    def _call(self, key: str, request: Callable[[], T]) -> T:
        """Run ``request``, again if its answer is incomplete or damaged; errors become a StoreError of one line."""
        for delay_s in self.delays_s:
            try:
                return self._once(key, request)
            except IncompleteError:
                time.sleep(delay_s)
        return self._once(key, request)

    def _once(self, key: str, request: Callable[[], T]) -> T:
        where, url = self.address(key), self.connection.url
        try:
            return request()
        except KondenseError:
            raise
        except S3Error as error:
            raise self._explained(key, error) from error
        except UnreachableError as error:
            secure = isinstance(error.__cause__, urllib3.exceptions.SSLError)
            more = ", and SSL_CERT_FILE if its certificate is of an authority of your own" if secure else ""
            raise StoreError(
                f"{url} cannot be reached for {where} ({self._line(error)}); check MINIO_ENDPOINT, MINIO_SECURE and"
                f" that the object store runs{more}."
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise IncompleteError(f"{url} broke off its answer for {where} ({self._line(error)}).") from error
        except MinioException as error:
            raise StoreError(
                f"{url} failed for {where} ({self._line(error)}); check MINIO_ENDPOINT and the object store's log."
            ) from error
        except DAMAGED as error:
            raise IncompleteError(
                f"{url} gave a damaged answer for {where} ({self._line(error)}); check that MINIO_ENDPOINT is that of"
                " an object store, and no proxy's login page."
            ) from error

    def _line(self, error: object) -> str:
        """Return an error's text in one line of readable length, without keys and signatures."""
        text = " ".join(str(error).split()) or type(error).__name__
        for secret in (self.connection.secret_key, self.connection.access_key):
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
        return SIGNED.sub(r"\1***", text)[:200]

    def _explained(self, key: str, error: S3Error) -> StoreError:
        where, code = f"{self.address(key)} at {self.connection.url}", self._line(error.code or "without a code")
        if code in MISSING:
            return NotFoundError(f"{where} does not exist ({code}).")
        if code in LOST_PARTS:
            return IncompleteError(f"{where} was not written: the server lost its parts ({code}).")
        if code in FULL:
            return StoreError(errno.ENOSPC, f"{where} was not written: the object store is full ({code})")
        if advice := self._advice(code, error):
            return StoreError(f"{where} was refused ({code}); {advice}.")
        return StoreError(
            f"{where} failed: {code} ({self._line(error.message)}); check the object store's log and free disk space."
        )

    def _advice(self, code: str, error: S3Error) -> str:
        """Return what to do about a refused request; "" if the error is none."""
        if code in CLOCK:
            return "set the clock of this machine"
        if code in OTHER_REGION:
            return f"set MINIO_REGION ({self._line(error.message)})"
        if code in REFUSED or error.response.status in (401, 403):
            return f"check MINIO_ACCESS_KEY, MINIO_SECRET_KEY and their rights in bucket {self.bucket}"
        return ""
