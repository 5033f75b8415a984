"""The object store: keys and bytes, on a plain directory or in a bucket, behind one opener.

A key is a relative path such as ``models/lenet5/champion.json``; no part of it starts with a dot,
because such names are the stores' own (scratch files, leases). Importing this module is cheap.
"""

import abc
import contextlib
import datetime
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kondense.errors import InputError, KondenseError
from kondense.files import ArtifactError, json_bytes, new_directory, sha256

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
BUCKET_SCHEMES = ("minio", "s3")


class StoreError(KondenseError, OSError):
    """The store cannot do what was asked: unreachable, refused, full or damaged; the text says which."""


class NotFoundError(StoreError, FileNotFoundError):
    """There is nothing under the key."""


class ExistsError(StoreError, FileExistsError):
    """There is something under the key already, and it was to be written only if absent."""


class DamagedError(StoreError):
    """What is under the key is not what was stored."""


class Lease(abc.ABC):
    """The exclusive use of a key, for a limited time."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raise StoreError when the time is over, so that nothing is written without the lease."""


class Store(abc.ABC):
    """Keys and bytes under one root. Every write is whole or not at all, whatever dies meanwhile.

    Attributes:
        uri: the root as ``open_store`` takes it.
    """

    uri: str

    @abc.abstractmethod
    def read(self, key: str) -> bytes:
        """Return the content under ``key``; NotFoundError when there is none."""

    @abc.abstractmethod
    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Put ``data`` under ``key``; with ``if_absent``, exactly one of several racing writers does.

        Raises:
            ExistsError: ``if_absent`` and there is something under ``key`` already.
            StoreError: the store is full, refuses or cannot be reached; ``key`` is what it was.
        """

    @abc.abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether there is something under ``key``."""

    @abc.abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """Return the keys in the folder ``prefix`` and below, whole and sorted; none is an empty list."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove ``key``; nothing happens when it is not there."""

    @abc.abstractmethod
    def upload_file(self, key: str, path: Path) -> None:
        """Put the content of the file ``path`` under ``key``, in parts when it is large."""

    @abc.abstractmethod
    def download_file(self, key: str, path: Path) -> None:
        """Write what is under ``key`` to the file ``path``, verified, whole or not at all."""

    @abc.abstractmethod
    def exclusive(self, key: str, *, wait_s: float = 120.0) -> contextlib.AbstractContextManager[Lease]:
        """Hold ``key`` alone among all who ask for it; it is free again when the holder dies.

        Raises:
            StoreError: others held it for ``wait_s`` seconds.
        """

    def address(self, key: str) -> str:
        """Return the URI of ``key``."""
        return f"{self.uri.rstrip('/')}/{key}" if key else self.uri

    def upload_directory(self, prefix: str, directory: Path, *, replace: bool = False) -> dict[str, Any]:
        """Put every file of ``directory`` under ``prefix``, the manifest that makes them visible last.

        A prefix is written once, unless ``replace``: the same files again change nothing.

        Args:
            prefix: where.
            directory: what; sub-directories too.
            replace: take away other files that are there. Meanwhile there is no directory under ``prefix``.

        Returns:
            The manifest.

        Raises:
            ExistsError: a complete directory of other files is there.
            StoreError: the store is full, refuses or cannot be reached; nothing is visible then.
        """
        files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
        if not files:
            raise InputError(f"{directory} must hold at least one file, but it holds none.")
        if replace:
            self._clear(prefix, {name: sha256(path) for name, path in files.items()})
        return self.commit(prefix, self.upload_files(prefix, files))

    def upload_files(self, prefix: str, files: Mapping[str, Path]) -> dict[str, Any]:
        """Put ``files``, by name, under ``prefix`` and return the manifest that ``commit`` makes them visible with."""
        if MANIFEST in files:
            raise InputError(f"{files[MANIFEST]} must not be called {MANIFEST}: the store writes its own.")
        digests = {name: sha256(path) for name, path in sorted(files.items())}
        if not self._stands(prefix, digests):
            for name in digests:
                self.upload_file(f"{prefix}/{name}", files[name])
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        return {"format_version": FORMAT_VERSION, "created": created, "files": digests}

    def commit(self, prefix: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Make the uploaded files of ``manifest`` visible under ``prefix``; return the manifest that stands."""
        try:
            self.write(f"{prefix}/{MANIFEST}", json_bytes(manifest), if_absent=True)
        except ExistsError:
            self._stands(prefix, manifest["files"])
            return self.manifest(prefix)
        return dict(manifest)

    def manifest(self, prefix: str) -> dict[str, Any]:
        """Return the manifest of the directory under ``prefix``: ``created`` and ``files`` (name -> sha256).

        Raises:
            NotFoundError: there is no complete directory.
            DamagedError: the manifest is damaged or of an unknown format version.
        """
        key = f"{prefix}/{MANIFEST}"
        try:
            content = json.loads(self.read(key))
        except ValueError as error:
            raise DamagedError(f"{self.address(key)} must be JSON, but: {error}.") from None
        found = content.get("format_version") if isinstance(content, dict) else None
        if found != FORMAT_VERSION or not isinstance(content.get("files"), dict):
            raise DamagedError(f"{self.address(key)} must have format_version {FORMAT_VERSION}, but got {found}.")
        return dict(content)

    def download_directory(
        self, prefix: str, directory: Path, *, rebuild: Mapping[str, Callable[[Path], None]] | None = None
    ) -> tuple[str, ...]:
        """Write the directory under ``prefix`` to ``directory``, verified, whole or not at all.

        Args:
            prefix: where.
            directory: replaced if it is there.
            rebuild: by name, functions that write a file into a directory of all the other ones. Such a file is
                fetched only where what they write is not what was stored, or they raise ArtifactError.

        Returns:
            The names of the files that were fetched.

        Raises:
            NotFoundError: there is no complete directory, or a file of it is missing.
            DamagedError: a file is not what was stored.
            StoreError: the store cannot be reached.
            OSError: the disk of ``directory`` is full or not writable.
        """
        digests: dict[str, str] = self.manifest(prefix)["files"]
        rebuilt = {name: write for name, write in (rebuild or {}).items() if name in digests}
        with new_directory(directory) as scratch:
            fetched = [name for name in digests if name not in rebuilt]
            self._fetch_files(prefix, scratch, {name: digests[name] for name in fetched})
            for name, write in rebuilt.items():
                with contextlib.suppress(ArtifactError):
                    write(scratch)
                if not (scratch / name).exists() or sha256(scratch / name) != digests[name]:
                    self._fetch_files(prefix, scratch, {name: digests[name]})
                    fetched.append(name)
        return tuple(fetched)

    def _fetch_files(self, prefix: str, directory: Path, digests: Mapping[str, str]) -> None:
        for name, expected in digests.items():
            check_key(name)
            self.download_file(f"{prefix}/{name}", directory / name)
            if (found := sha256(directory / name)) != expected:
                raise damaged(self.address(f"{prefix}/{name}"), expected, found)

    def _clear(self, prefix: str, digests: Mapping[str, str]) -> None:
        """Remove the directory under ``prefix`` unless it is this one; the manifest goes first."""
        with contextlib.suppress(NotFoundError, DamagedError):
            if self.manifest(prefix)["files"] == digests:
                return
        for key in (f"{prefix}/{MANIFEST}", *self.list(prefix)):
            self.delete(key)

    def download_artifact(self, directory: Path) -> None:
        """Write the files of the artifact that the root holds to ``directory``; whoever loads it verifies it.

        An artifact is flat, so what lies in folders below is somebody else's.
        """
        directory.mkdir(parents=True, exist_ok=True)
        for key in self.list():
            if "/" not in key:
                self.download_file(key, directory / key)

    def _stands(self, prefix: str, digests: Mapping[str, str]) -> bool:
        try:
            standing = self.manifest(prefix)["files"]
        except NotFoundError:
            return False
        if standing != digests:
            raise ExistsError(f"{self.address(prefix)} is written once, and holds other files already.")
        return True


def damaged(address: str, expected: str, found: str) -> DamagedError:
    """Return the error that says that the content at ``address`` is not what was stored."""
    return DamagedError(f"{address} must have sha256 {expected}, but has {found}: it was damaged or changed.")


def check_key(key: str) -> None:
    """Raise ValueError unless ``key`` is a relative path whose parts are plain names."""
    parts = key.split("/")
    if any(not part or part.startswith(".") or "\\" in part or not part.isprintable() for part in parts):
        raise InputError(
            f"a key must be a relative path whose parts are not empty and do not start with a dot, but got {key!r}."
        )


def open_store(uri: str) -> Store:
    """Open the store at ``uri``: a plain path, ``file://``, ``minio://bucket/prefix`` or ``s3://bucket/prefix``.

    Buckets are reached as the environment says: MINIO_ENDPOINT (host:port), MINIO_ACCESS_KEY,
    MINIO_SECRET_KEY, MINIO_SECURE (true or false; default: false for this machine, else true).

    Raises:
        ValueError: an unknown scheme, or no bucket.
        StoreError: the environment does not say how to reach the bucket.
    """
    from kondense.store.local import LocalStore  # the implementations import this module

    if "://" not in uri:
        if not uri:
            raise InputError("a store must be a path or a URI, but got ''.")
        return LocalStore(Path(uri))
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return LocalStore(Path(parts.netloc + parts.path))
    if parts.scheme not in BUCKET_SCHEMES:
        raise InputError(f"a store must be a path, file://, minio:// or s3://, but got {uri!r}.")
    if not parts.netloc:
        raise InputError(f"a store must be {parts.scheme}://bucket/prefix, but got {uri!r}.")
    from kondense.store.bucket import ObjectStore
    from kondense.store.connection import connection_from_environment

    connection = connection_from_environment(os.environ)
    return ObjectStore(uri, bucket=parts.netloc, prefix=parts.path.strip("/"), connection=connection)


def visible(keys: Iterator[str]) -> list[str]:
    """Return ``keys`` sorted, without the stores' own and without folder markers."""
    return sorted(key for key in keys if key and not key.endswith("/") and "/." not in f"/{key}")
