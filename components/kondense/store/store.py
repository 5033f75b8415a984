"""The object store: keys and bytes in a directory or in a bucket.

A key is a relative path such as ``models/lenet5/champion.json``. No part of it starts with a dot: such names are
reserved for scratch files and leases.
"""

import abc
import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kondense.errors import InputError, KondenseError
from kondense.files import ArtifactError, below, json_bytes, new_directory, parse_json, sha256
from kondense.json_text import LARGEST_JSON

MANIFEST = "manifest.json"
FORMAT_VERSION = 1


class StoreError(KondenseError, OSError):
    """The store is unreachable, full or damaged, or refused the request; the text says which."""


class NotFoundError(StoreError, FileNotFoundError):
    """The key does not exist."""


class ExistsError(StoreError, FileExistsError):
    """The key exists already, and was to be written only if absent."""


class TooLargeError(StoreError):
    """The content under the key is larger than what may be there."""

    def __init__(self, place: str, limit_bytes: int) -> None:
        super().__init__(f"{place} must have at most {limit_bytes:,} bytes, but has more.")


class DamagedError(StoreError):
    """The content under the key is not the content that was stored."""


class Lease(abc.ABC):
    """Exclusive use of a key for a limited time."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raise StoreError if the time is over, so that nothing is written without the lease."""


class Store(abc.ABC):
    """Keys and bytes under one root. Every write is complete or has no effect, even if a process dies.

    Attributes:
        uri: the root, as ``open_store`` takes it.
    """

    uri: str

    @abc.abstractmethod
    def read(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """Return the content under ``key``; NotFoundError if there is none.

        Raises:
            TooLargeError: it has more than ``limit_bytes``, by default this machine's memory.
        """

    @abc.abstractmethod
    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write ``data`` under ``key``; with ``if_absent``, exactly one of several concurrent writers succeeds.

        Raises:
            ExistsError: ``if_absent`` and ``key`` exists already.
            StoreError: the store is full, refuses or cannot be reached; ``key`` is unchanged.
        """

    @abc.abstractmethod
    def exists(self, key: str) -> bool:
        """Return whether ``key`` exists."""

    @abc.abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """Return the complete keys in the folder ``prefix`` and below, sorted."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove ``key`` if it exists."""

    @abc.abstractmethod
    def upload_file(self, key: str, path: Path) -> None:
        """Write the content of the file ``path`` under ``key``, in parts if it is large."""

    @abc.abstractmethod
    def download_file(self, key: str, path: Path) -> None:
        """Write the content under ``key`` to the file ``path``, verified, complete or not at all."""

    @abc.abstractmethod
    def exclusive(self, key: str, *, wait_s: float = 120.0) -> contextlib.AbstractContextManager[Lease]:
        """Hold ``key`` exclusively during the block; it is released if the holder dies.

        Raises:
            StoreError: others held ``key`` for ``wait_s`` seconds.
        """

    def address(self, key: str) -> str:
        """Return the URI of ``key``."""
        return f"{self.uri.rstrip('/')}/{key}" if key else self.uri

    def upload_directory(self, prefix: str, directory: Path, *, replace: bool = False) -> dict[str, Any]:
        """Write every file of ``directory`` under ``prefix`` and then the manifest, which makes them visible.

        A prefix is written once, unless ``replace``; uploading the same files again changes nothing.

        Args:
            prefix: the folder of the store.
            directory: the local directory, with its sub-directories.
            replace: remove other files first; until the upload ends there is no directory under ``prefix``.

        Returns:
            The manifest.

        Raises:
            ExistsError: ``prefix`` holds a complete directory of other files.
            StoreError: the store is full, refuses or cannot be reached; nothing is visible then.
        """
        files = {path.relative_to(directory).as_posix(): path for path in below(directory) if path.is_file()}
        if not files:
            raise InputError(f"{directory} must hold at least one file, but it holds none.")
        if replace:
            self._clear(prefix, {name: sha256(path) for name, path in files.items()})
        return self.commit(prefix, self.upload_files(prefix, files))

    def upload_files(self, prefix: str, files: Mapping[str, Path]) -> dict[str, Any]:
        """Write ``files``, by name, under ``prefix`` and return the manifest, which ``commit`` then writes."""
        if MANIFEST in files:
            raise InputError(f"{files[MANIFEST]} must not be called {MANIFEST}: the name is reserved for the store.")
        digests = {name: sha256(path) for name, path in sorted(files.items())}
        if not self._holds(prefix, digests):
            for name in digests:
                self.upload_file(f"{prefix}/{name}", files[name])
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        return {"format_version": FORMAT_VERSION, "created": created, "files": digests}

    def commit(self, prefix: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Make the uploaded files of ``manifest`` visible under ``prefix``; return the manifest in force."""
        try:
            self.write(f"{prefix}/{MANIFEST}", json_bytes(manifest), if_absent=True)
        except ExistsError:
            self._holds(prefix, manifest["files"])
            return self.manifest(prefix)
        return dict(manifest)

    def manifest(self, prefix: str) -> dict[str, Any]:
        """Return the manifest of the directory under ``prefix``: ``created`` and ``files`` (name -> sha256).

        Raises:
            NotFoundError: ``prefix`` holds no complete directory.
            DamagedError: the manifest is damaged or has an unknown format version.
        """
        key = f"{prefix}/{MANIFEST}"
        try:
            text = self.read(key, limit_bytes=LARGEST_JSON)
            content = parse_json(text, self.address(key), format_version=FORMAT_VERSION)
        except (ArtifactError, TooLargeError) as error:
            raise DamagedError(str(error)) from None
        files = content.get("files")
        if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
            raise DamagedError(f"{self.address(key)} must give the sha256 of each of its files, but does not.")
        if not isinstance(content.get("created"), str):
            raise DamagedError(f"{self.address(key)} must say when it was created, but does not.")
        return content

    def download_directory(
        self, prefix: str, directory: Path, *, rebuild: Mapping[str, Callable[[Path], None]] | None = None
    ) -> tuple[str, ...]:
        """Write the directory under ``prefix`` to ``directory``, verified, complete or not at all.

        Args:
            prefix: the folder of the store.
            directory: the local directory; replaced if it exists.
            rebuild: by name, functions that write a file into a directory of all other files. Such a file is
                fetched only if the result differs from the stored file, or the function raises ArtifactError.

        Returns:
            The names of the fetched files.

        Raises:
            NotFoundError: ``prefix`` holds no complete directory, or a file of it is missing.
            DamagedError: a file differs from the stored one.
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
            if (digest := sha256(directory / name)) != expected:
                raise damaged(self.address(f"{prefix}/{name}"), expected, digest)

    def _clear(self, prefix: str, digests: Mapping[str, str]) -> None:
        """Remove the directory under ``prefix``, manifest first, unless its files have these digests."""
        with contextlib.suppress(NotFoundError, DamagedError):
            if self.manifest(prefix)["files"] == digests:
                return
        for key in (f"{prefix}/{MANIFEST}", *self.list(prefix)):
            self.delete(key)

    def download_artifact(self, directory: Path) -> None:
        """Write the files of the artifact at the root to ``directory``; loading verifies them.

        An artifact is flat: files in folders below the root are not part of it.
        """
        directory.mkdir(parents=True, exist_ok=True)
        for key in self.list():
            if "/" not in key:
                self.download_file(key, directory / key)

    def _holds(self, prefix: str, digests: Mapping[str, str]) -> bool:
        try:
            present = self.manifest(prefix)["files"]
        except NotFoundError:
            return False
        if present != digests:
            raise ExistsError(f"{self.address(prefix)} is written once, and holds other files already.")
        return True


def damaged(address: str, expected: str, digest: str) -> DamagedError:
    """Return the error of content at ``address`` that differs from the stored content."""
    return DamagedError(
        f"{address} must have sha256 {ascii(expected)[1:-1][:64]}, but has {digest}: it was damaged or changed."
    )


def check_key(key: str, *, reading: bool = False) -> None:
    """Raise InputError unless ``key`` is a relative path of plain names; what others wrote may have odd characters."""
    parts = key.split("/")
    odd = not reading and ("\\" in key or not key.isprintable())
    if odd or any(not part or part.startswith(".") for part in parts):
        raise InputError(
            f"a key must be a relative path whose parts are not empty and do not start with a dot, but got {key!r}."
        )


def visible(keys: Iterator[str]) -> list[str]:
    """Return ``keys`` sorted, without reserved names and folder markers."""
    return sorted(key for key in keys if key and not key.endswith("/") and "/." not in f"/{key}")
