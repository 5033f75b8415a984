"""The cache of finished steps, keyed by content instead of by path.

A step is the same if its code, image, parameters and the content of its input artifacts are the same. Its code is
Kondense's and that of the user's networks and methods, which parameters and artifacts name. Its outputs are reused only
if every file of them still has the digest that it had when the step ended.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kondense
from kfp import dsl
from kfp.local.cache import LocalCache
from kondense.artifacts.lineage import LIBRARIES
from kondense.errors import InputError
from kondense.files import ArtifactError, below, file_digests, read_json, sha256, write_json
from kondense.json_text import json_object
from kondense.logging import LOG
from kondense.networks.allowed import check_allowed
from kondense.networks.code import code_digests, registered_digest
from kondense.removal import remove_directory
from kondense.store.open import local_path

FORMAT_VERSION = 2
OUTSIDE = ("source", "import_uri")  # parameters that name data that is not an input artifact
UNUSED_AFTER_S = 30 * 24 * 3600.0
DESCRIPTION = "model.json"  # of a model's directory
ABANDONED_AFTER_S = 24 * 3600.0  # a run in progress writes to its directory more often


class ContentCache(LocalCache):
    """kfp.local's cache, keyed by content, with verified outputs.

    Args:
        root: the directory of the entries.
        version: of the code that runs: the sources' digest, or an image's id.
        notice: called with a line about each damaged entry.
    """

    def __init__(self, root: Path, version: str, notice: Callable[[str], None] = LOG.warning) -> None:
        super().__init__(cache_root=str(root))
        self.version = version
        self.notice = notice
        self.digests: dict[str, Any] = {}  # by uri, of this run's artifacts, which no other process writes
        self.code: dict[str, str] = {}  # digests of the users' code that this run's steps have used, by name
        self.keys: dict[str, dict[str, str]] = {}  # the same of each step, by its key

    def compute_key(
        self,
        *,
        component_name: str,
        image: str,
        full_command: Sequence[str],
        arguments: Mapping[str, Any],
        env_vars: Mapping[str, str] | None = None,
        custom_cache_key: str | None = None,
    ) -> str:
        """Return the digest of everything that determines a step's outputs.

        ``component_name`` is ignored: it numbers a component's tasks, so it changes if one is added.

        Raises:
            InputError: a network's code has changed since an earlier step of this run.
        """
        code = self._code(arguments)
        content = {
            "version": self.version,
            "image": image,
            "command": list(full_command),
            "arguments": {name: self._identity(value) for name, value in arguments.items()},
            "code": code,
            "outside": {name: outside_identity(str(arguments[name])) for name in OUTSIDE if arguments.get(name)},
            "environment": dict(env_vars or {}),
            "key": custom_cache_key,
        }
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        self.keys[key] = code
        return key

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the outputs stored under ``key``; None if there are none or a file of them has changed."""
        path = Path(self._entry_path(key))
        try:
            entry = _entry(path)
        except ArtifactError as error:
            self.notice(f"{error} It is ignored, and the step runs again.")
            return None
        try:
            if not entry or not all(_unchanged(Path(uri), digests) for uri, digests in entry["files"].items()):
                return None
        except OSError as error:  # a name that no file system takes, a disk that fails
            self.notice(f"{path} names what cannot be read: {error.strerror}. It is ignored, and the step runs again.")
            return None
        try:
            outputs = {name: self._restored(value, entry["files"]) for name, value in entry["outputs"].items()}
        except (AttributeError, LookupError, TypeError, ValueError):  # kfp's own form, which another version may change
            self.notice(f"{path} must hold outputs of a step, but does not. It is ignored, and the step runs again.")
            return None
        self.digests.update(entry["files"])
        os.utime(path)
        return outputs

    def put(self, key: str, outputs: Mapping[str, Any]) -> None:
        """Store ``outputs`` under ``key``, with the digests of their files, unless the code has changed meanwhile."""
        code = self.keys.get(key, {})
        if code_digests(code) != code:
            return
        serialized = self._serialize_outputs(dict(outputs))
        files = {artifact.uri: tree_digests(Path(artifact.uri)) for artifact in _artifacts(outputs.values())}
        self.digests.update(files)
        content = {"outputs": serialized, "files": files}
        entry = {"format_version": FORMAT_VERSION, "sha256": digest(content), "content": content}
        write_json(Path(self._entry_path(key)), entry)

    def _code(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        found = code_digests(_named(arguments))
        for name, digest in found.items():
            if self.code.setdefault(name, digest) != digest:
                raise InputError(
                    f"the code of {name} must not change during a run, but it did: earlier steps used another version;"
                    " start the run again."
                )
        return found

    def _identity(self, value: Any) -> Any:
        if isinstance(value, dsl.Artifact):
            if value.uri not in self.digests:
                self.digests[value.uri] = tree_digests(Path(value.uri))
            return {"type": value.schema_title, "files": self.digests[value.uri]}
        if isinstance(value, list):
            return [self._identity(item) for item in value]
        return value

    def _restored(self, value: Any, files: Mapping[str, Any]) -> Any:
        if isinstance(value, dict) and "uri" in value:
            # kfp's own check rejects an artifact that consists of metadata without a file
            if value["uri"] not in files:
                raise LookupError(value["uri"])
            restored = self._deserialize_artifact({**value, "uri": ""})
            restored.uri = value["uri"]
            return restored
        if isinstance(value, dict) and "artifacts" in value:
            return [self._restored(item, files) for item in value["artifacts"]]
        return value


def outside_identity(uri: str) -> Any:
    """Return an identity of the content at ``uri``: digests of a local path, a new random one for a remote address."""
    path = local_path(uri)
    return tree_digests(path) if path is not None and path.exists() else os.urandom(16).hex()


def tree_digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below ``path`` by relative name; of ``path`` itself if it is a file."""
    return {"": sha256(path)} if path.is_file() else file_digests(path)


def _unchanged(path: Path, digests: Mapping[str, str]) -> bool:
    """Return whether ``path`` has just these files; a larger directory is not read."""
    files = [path] if path.is_file() else (each for each in below(path) if each.is_file())
    return len(list(itertools.islice(files, len(digests) + 1))) == len(digests) and tree_digests(path) == digests


def sources_version() -> str:
    """Return the digest of Kondense's sources, of registered code, and of the libraries that affect results."""
    root = Path(kondense.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)} {sha256(path)}\n".encode())
    for name in LIBRARIES:
        if name != "kondense":
            digest.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    return hashlib.sha256(f"{digest.hexdigest()} {registered_digest()}".encode()).hexdigest()


@contextlib.contextmanager
def kept_from_sweeps(entries: Path, artifacts: Path) -> Iterator[None]:
    """Remove what earlier runs left unused, and keep other runs from removing this one's outputs during the block."""
    artifacts.parent.mkdir(parents=True, exist_ok=True)
    with (artifacts.parent / "runs.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # other runs are alive; their newest outputs have no entries yet
            fcntl.flock(lock, fcntl.LOCK_SH)
            drop_unused(entries, artifacts, ABANDONED_AFTER_S)
        else:
            drop_unused(entries, artifacts, 0.0)
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def drop_unused(entries: Path, artifacts: Path, abandoned_after_s: float) -> None:
    """Remove entries that no run has used for a month, and the outputs of earlier runs that no entry refers to.

    Args:
        entries: the directory of the entries.
        artifacts: that of the runs' outputs.
        abandoned_after_s: outputs without an entry are removed only if nothing was added to them for this time.
    """
    used: set[str] = set()
    for path in entries.glob("*.json"):
        if time.time() - path.stat().st_mtime > UNUSED_AFTER_S:
            path.unlink()
        else:
            with contextlib.suppress(ArtifactError):  # it is told when its step is due
                used.update(Path(uri).parent.parent.name for uri in _entry(path)["files"])
    for directory in artifacts.glob("*"):
        if directory.name not in used and time.time() - directory.stat().st_mtime > abandoned_after_s:
            remove_directory(directory, ignore_errors=True)


def _named(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that may name a network or a method: parameters, and the networks of models."""
    for name, value in arguments.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dsl.Artifact) or name in OUTSIDE:
                yield from _network_in(Path(item.uri if isinstance(item, dsl.Artifact) else str(item)))
            elif isinstance(item, str):
                yield item


def _network_in(directory: Path) -> list[str]:
    """Return the name of the network of the model in ``directory``, if there is one that may be imported."""
    try:
        name = str(json_object((directory / DESCRIPTION).read_bytes(), DESCRIPTION)["network"]["name"])
        check_allowed(name)  # the code of any other is not even read
    except (OSError, ValueError, LookupError, TypeError):  # no model, or one that the step will refuse
        return []
    return [name]


def _entry(path: Path) -> dict[str, Any]:
    """Return the outputs and the files' digests of an entry; nothing if it does not exist.

    Raises:
        ArtifactError: it is damaged or of another version.
    """
    if not path.exists():
        return {}
    entry = read_json(path, format_version=FORMAT_VERSION)
    content = entry.get("content")
    if not isinstance(content, dict) or digest(content) != entry.get("sha256"):
        raise ArtifactError(f"{path} must have the sha256 that it states, but was damaged or changed.")
    files = content.get("files")
    if not isinstance(files, dict) or not all(uri.isprintable() and isinstance(files[uri], dict) for uri in files):
        raise ArtifactError(f"{path} must give the files of a step's outputs, but does not.")
    return content


def digest(content: Any) -> str:
    """Return the digest of an entry's content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _artifacts(values: Any) -> Iterator[dsl.Artifact]:
    for value in values:
        if isinstance(value, dsl.Artifact):
            yield value
        elif isinstance(value, list):
            yield from _artifacts(value)
