"""A store in a bucket of MinIO or any S3 endpoint.

The SHA-256 of every object is stored in its metadata and checked at every read.
"""

import contextlib
import errno
import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import urllib3
from minio import Minio
from minio.datatypes import Object
from minio.error import MinioException, S3Error

from kondense.errors import InputError
from kondense.files import sha256
from kondense.store.connection import DELAYS_S, Connection, PatientPool
from kondense.store.lease import hold
from kondense.store.local import replacing
from kondense.store.store import (
    ExistsError,
    Lease,
    NotFoundError,
    Store,
    StoreError,
    check_key,
    damaged,
    visible,
)

T = TypeVar("T")

DIGEST = "sha256"
PART_BYTES = 16 * 2**20  # larger objects are uploaded in parts of this size
CHUNK_BYTES = 2**20
MISSING = ("NoSuchKey", "NoSuchBucket")
REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")
FULL = ("XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded")
LOST_PARTS = ("NoSuchUpload", "InvalidPart")  # or the server joined them, but its answer was lost
MADE_BY_ANOTHER = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


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
            raise InputError(f"a bucket's name must be 3 to 63 of a-z, 0-9, dot and dash, but got {bucket!r}.")
        self.uri = uri.rstrip("/")
        self.bucket = bucket
        self.prefix = prefix
        self.connection = connection
        self.delays_s = delays_s
        self.lease_s = lease_s
        self.client = Minio(
            connection.endpoint,
            access_key=connection.access_key,
            secret_key=connection.secret_key,
            secure=connection.secure,
            region=connection.region,
            http_client=PatientPool(delays_s),
        )

    def read(self, key: str) -> bytes:
        """See Store."""
        check_key(key)
        content = io.BytesIO()
        self._download(key, content)
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
            self._call(key, lambda: self.client.stat_object(self.bucket, self._name(key)))
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
            self._download(key, file)

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
            entries = self._call(folder, lambda: [*self.client.list_objects(self.bucket, start, recursive=True)])
        except NotFoundError:
            return  # no bucket yet
        for entry in entries:
            yield (entry.object_name or "")[skip:], entry

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _put(self, key: str, file: BinaryIO, size: int, digest: str) -> None:
        def put() -> None:
            file.seek(0)
            self.client.put_object(
                self.bucket, self._name(key), file, size, metadata={DIGEST: digest}, part_size=PART_BYTES
            )

        try:
            self._again(key, put)
        except NotFoundError:
            self._call("", self._make_bucket)
            self._again(key, put)

    def _make_bucket(self) -> None:
        try:
            self.client.make_bucket(self.bucket)
        except S3Error as error:
            if error.code not in MADE_BY_ANOTHER:
                raise

    def _download(self, key: str, file: BinaryIO) -> None:
        self._again(key, lambda: self._fetch(key, file))

    def _again(self, key: str, request: Callable[[], None]) -> None:
        for delay_s in (*self.delays_s, None):
            try:
                return self._call(key, request)
            except IncompleteError:
                if delay_s is None:
                    raise
                time.sleep(delay_s)
        return None

    def _fetch(self, key: str, file: BinaryIO) -> None:
        """Write one object to ``file`` and check it."""
        file.seek(0)
        file.truncate()
        response = self.client.get_object(self.bucket, self._name(key))
        hasher = hashlib.sha256()
        try:
            for chunk in response.stream(CHUNK_BYTES):
                hasher.update(chunk)
                file.write(chunk)
        except urllib3.exceptions.HTTPError as error:
            raise IncompleteError(f"{self.address(key)} broke off while it was read: {line(error)}.") from error
        finally:
            response.close()
            response.release_conn()
        expected = response.headers.get(f"x-amz-meta-{DIGEST}")
        if expected and hasher.hexdigest() != expected:
            raise damaged(self.address(key), expected, hasher.hexdigest())

    def _call(self, key: str, request: Callable[[], T]) -> T:
        """Run ``request``; errors of minio and urllib3 become a StoreError of one line."""
        try:
            return request()
        except S3Error as error:
            raise self._explained(key, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise StoreError(
                f"{self.connection.url} cannot be reached for {self.address(key)} ({line(error)});"
                " check MINIO_ENDPOINT, MINIO_SECURE and that the object store runs."
            ) from error
        except MinioException as error:
            raise StoreError(
                f"{self.connection.url} failed for {self.address(key)} ({line(error)});"
                " check MINIO_ENDPOINT and the object store's log."
            ) from error

    def _explained(self, key: str, error: S3Error) -> StoreError:
        where = f"{self.address(key)} at {self.connection.url}"
        if error.code in MISSING:
            return NotFoundError(f"{where} does not exist ({error.code}).")
        if error.code in LOST_PARTS:
            return IncompleteError(f"{where} was not written: the server lost its parts ({error.code}).")
        if error.code in REFUSED:
            return StoreError(
                f"{where} was refused ({error.code}); check MINIO_ACCESS_KEY, MINIO_SECRET_KEY"
                f" and their rights in bucket {self.bucket}."
            )
        if error.code in FULL:
            return StoreError(errno.ENOSPC, f"{where} was not written: the object store is full ({error.code})")
        return StoreError(
            f"{where} failed: {error.code} ({line(error.message)}); check the object store's log and free disk space."
        )


class ObjectTickets:
    """The tickets for one key of a bucket: objects in a reserved folder (see lease.Tickets)."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self.store = store
        self.folder = f".leases/{key}"
        self.postings = 0

    def post(self, ticket: str) -> None:
        """Post ``ticket``, or renew it."""
        self.postings += 1  # changes content, ETag and therefore the mark
        self.store.put(f"{self.folder}/{ticket}", str(self.postings).encode())

    def posted(self) -> dict[str, str]:
        """Return every posted ticket with its mark."""
        entries = self.store.entries(self.folder)
        return {key.rpartition("/")[2]: f"{entry.etag} {entry.last_modified}" for key, entry in entries}

    def remove(self, ticket: str) -> None:
        """Remove ``ticket``."""
        self.store.remove(f"{self.folder}/{ticket}")


def line(error: object) -> str:
    """Return the first line of an error's text, cut to a readable length."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
