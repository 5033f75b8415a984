"""The functions of `kondense models`: list, show, pull and verify published models, without torch."""

import dataclasses
from pathlib import Path
from typing import Any

from kondense.artifacts.identity import MODEL_FORMAT, OWN_FILES, directory_identity
from kondense.errors import InputError
from kondense.files import ArtifactError, read_json, verify_files
from kondense.publish.config import check_model_name
from kondense.publish.versions import (
    RECORD,
    Version,
    model_names,
    read_champion,
    read_version,
    read_versions,
    version_id,
    version_ids,
    version_prefix,
)
from kondense.scratch import scratch_directory
from kondense.store.store import DamagedError, NotFoundError, Store

CHAMPION = "champion"


@dataclasses.dataclass(frozen=True)
class Row:
    """One published version in a list; ``champion`` marks the one that is served."""

    model: str
    champion: bool
    version: Version


@dataclasses.dataclass(frozen=True)
class Verification:
    """The result of checking one version: the number of files read, and the problem, empty if there is none."""

    model: str
    version: str
    files: int
    problem: str


def list_models(store: Store, name: str = "") -> list[Row]:
    """Return every published version of ``name``, or of all models, oldest first; the store may be empty.

    Raises:
        InputError: ``name`` is not published; the text lists the published names.
    """
    names = [_known(store, name)] if name else model_names(store)
    rows = []
    for model in names:
        champion = read_champion(store, model)
        served = champion["version"] if champion else ""
        rows += [Row(model, version.id == served, version) for version in read_versions(store, model)]
    return rows


def show_model(store: Store, name: str, version: str = CHAMPION) -> dict[str, Any]:
    """Return the files, the record and the lineage of a version.

    Returns:
        ``version``, ``created``, ``champion`` (the pointer, or None if it points to another version), ``uri``,
        ``files`` (sha256 by name), ``record`` (version.json), ``description`` (model.json: network, edits, lineage).

    Raises:
        InputError: no such model or version; the text lists the published ones.
        StoreError: the store cannot be reached or the version is damaged.
    """
    published = find_version(store, name, version)
    with scratch_directory("models") as scratch:
        store.download_file(f"{version_prefix(name, published.id)}/model.json", scratch / "model.json")
        description = read_json(scratch / "model.json", format_version=MODEL_FORMAT)
    champion = read_champion(store, name)
    return {
        "version": published.id,
        "created": published.created,
        "champion": champion if champion and champion["version"] == published.id else None,
        "uri": store.address(version_prefix(name, published.id)),
        "files": dict(published.files),
        "record": dict(published.record),
        "description": description,
    }


@dataclasses.dataclass(frozen=True)
class Pulled:
    """A version that was pulled, the files that were fetched, and their size."""

    version: Version
    fetched: tuple[str, ...]
    fetched_bytes: int


def pull_model(store: Store, name: str, directory: Path, version: str = CHAMPION) -> Pulled:
    """Write a version to ``directory``, verified, whole or not at all.

    Its weights.safetensors is rebuilt from weights.kz, and fetched only if the two differ.

    Args:
        store: of the published models.
        name: the model.
        directory: becomes a Model artifact with report.json, report.html and version.json; replaced if it is one.
        version: an id, the beginning of one, or ``champion``.

    Raises:
        InputError: no such model or version, or ``directory`` has other content.
        StoreError: the store cannot be reached or the version is damaged.
    """
    if directory.exists() and not (directory / RECORD).is_file() and (directory.is_file() or any(directory.iterdir())):
        raise InputError(f"{directory} must be new, empty or an earlier pull, but it has other content.")
    published = find_version(store, name, version)
    from kondense.artifacts.model import WEIGHTS  # these need torch
    from kondense.codec.model_file import rebuild_weights

    rebuild = {WEIGHTS: rebuild_weights}
    fetched = store.download_directory(version_prefix(name, published.id), directory, rebuild=rebuild)
    return Pulled(published, fetched, sum((directory / file).stat().st_size for file in fetched))


def verify_models(store: Store, name: str = "", version: str = "") -> list[Verification]:
    """Read every file of ``version``, or of all versions of ``name``, or of all models, and check all digests.

    Raises:
        InputError: no such model or version; the text lists the published ones. Or there is none at all.
        StoreError: the store cannot be reached.
    """
    names = [_known(store, name)] if name else model_names(store)
    if not names:
        raise InputError(f"{store.uri} must hold published models to verify, but holds none.")
    return [
        _verify(store, model, checked)
        for model in names
        for checked in ([find_id(store, model, version)] if version else version_ids(store, model))
    ]


def find_version(store: Store, name: str, version: str = CHAMPION) -> Version:
    """Return the version of an id, the beginning of one, or ``champion``.

    Raises:
        InputError: there is none or more than one; the text lists the ids.
    """
    return read_version(store, name, find_id(store, name, version))


def find_id(store: Store, name: str, version: str) -> str:
    """Return the id of that version, without reading it."""
    ids = version_ids(store, _known(store, name))
    if version == CHAMPION:
        champion = read_champion(store, name)
        if not champion:
            raise InputError(f"model {name!r} has no champion; its versions are {', '.join(ids)}.")
        return champion["version"]
    matches = [known for known in ids if version and known.startswith(version)]
    if len(matches) != 1:
        raise InputError(
            f"version must be {CHAMPION} or the beginning of one of {', '.join(ids)}, but got {version!r}."
        )
    return matches[0]


def _known(store: Store, name: str) -> str:
    check_model_name(name)
    if not version_ids(store, name):
        known = ", ".join(model_names(store)) or "none yet"
        raise InputError(f"model {name!r} is not published in {store.uri}; published are: {known}.")
    return name


def _verify(store: Store, name: str, version: str) -> Verification:
    prefix, files = version_prefix(name, version), {}
    try:
        files = store.manifest(prefix)["files"]
        with scratch_directory("models") as scratch:
            directory = scratch / version
            store.download_directory(prefix, directory)
            description = read_json(directory / "model.json", format_version=MODEL_FORMAT)
            verify_files(directory, description["files"], own=OWN_FILES)
            same = directory_identity(directory) == read_version(store, name, version).record["identity"]
    except (ArtifactError, NotFoundError, DamagedError) as error:
        return Verification(name, version, len(files), str(error))
    problem = ""
    if version_id(files) != version:
        problem = f"{prefix} must be named by the digest of its files, {version_id(files)}."
    elif not same:
        problem = f"{prefix}/{RECORD} must describe the model beside it, but describes another one."
    return Verification(name, version, len(files), problem)
