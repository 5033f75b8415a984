"""Published models in a store: immutable versions and the pointer to the champion. Stdlib only.

``models/<name>/<version>/``: the files of the model artifact, report.json, report.html, version.json, and the
store's manifest.json, without which the version does not exist. The version is derived from the digests of its
files, so its content is always the same.
``models/<name>/champion.json``: the version to serve.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict, cast

from kondense.artifacts.measurements import Fraction, Latency, PositiveCount
from kondense.artifacts.report import Bytes
from kondense.artifacts.schema import check_fields
from kondense.errors import InputError
from kondense.files import ArtifactError, json_bytes, parse_json
from kondense.json_text import LARGEST_JSON, SHOWN
from kondense.store.store import MANIFEST, NotFoundError, Store, check_key

FORMAT_VERSION = 1
ROOT = "models"
RECORD = "version.json"
CHAMPION = "champion.json"
DIGITS = 12  # of a version: 48 bits
VERSION = re.compile(rf"[0-9a-f]{{{DIGITS}}}")


class Machine(TypedDict):
    """The machine of the latency measurement."""

    cpu: str
    cores: PositiveCount


class VersionRecord(TypedDict):
    """version.json: origin and measurements of a version. Digests are SHA-256.

    ``identity`` is equal for models that compute the same: it excludes lineage and measurements. ``test_digest`` is the
    digest of the test split; accuracies are comparable if it is equal.
    """

    format_version: int
    model_name: str
    candidate: str
    identity: str
    model_digest: str
    dataset_digest: str
    test_digest: str
    dataset: str
    classes: list[str]
    image_shape: list[PositiveCount]
    network: str
    steps: list[str]
    validation_accuracy: Fraction
    test_accuracy: Fraction
    onnx_test_accuracy: Fraction
    teacher_test_accuracy: Fraction
    parameters: PositiveCount
    nonzero_parameters: Annotated[int, "[0, inf)"]
    macs: Annotated[int, "[0, inf)"]
    bytes: Bytes
    latency_ms: Latency
    machine: Machine


class Champion(TypedDict):
    """champion.json. ``reference_accuracy`` is the best that champions reached on the split ``test_digest``.

    A comparison with the last champion alone would allow a drop by the tolerance at every publication.
    """

    format_version: int
    version: str
    previous: str
    promoted: str
    reason: str
    test_digest: str
    reference_accuracy: Fraction


@dataclasses.dataclass(frozen=True)
class Version:
    """A published version: id, time of creation (ISO 8601, UTC), digests of its files, record."""

    id: str
    created: str
    files: Mapping[str, str]
    record: VersionRecord


def version_id(digests: Mapping[str, str]) -> str:
    """Return the version of files with these digests, by name."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()[:DIGITS]


def model_prefix(name: str) -> str:
    """Return the folder of a model."""
    return f"{ROOT}/{name}"


def version_prefix(name: str, version: str) -> str:
    """Return the folder of a version."""
    return f"{ROOT}/{name}/{version}"


def model_names(store: Store) -> list[str]:
    """Return the names of all published models."""
    return sorted({key.split("/")[1] for key in store.list(ROOT) if _is_manifest(key)})


def version_ids(store: Store, name: str) -> list[str]:
    """Return the ids of the complete versions of a model."""
    return sorted(key.split("/")[2] for key in store.list(model_prefix(name)) if _is_manifest(key))


def read_versions(store: Store, name: str) -> list[Version]:
    """Return the complete versions of a model, oldest first."""
    versions = (read_version(store, name, version) for version in version_ids(store, name))
    return sorted(versions, key=lambda version: (version.created, version.id))


def read_version(store: Store, name: str, version: str) -> Version:
    """Return one version.

    Raises:
        NotFoundError: the version does not exist.
        ArtifactError: its record is damaged or has an unknown format version.
    """
    prefix = version_prefix(name, version)
    manifest = store.manifest(prefix)
    record = cast(VersionRecord, _read(store, f"{prefix}/{RECORD}", VersionRecord))
    return Version(version, manifest["created"], manifest["files"], record)


def read_champion(store: Store, name: str) -> Champion | None:
    """Return the pointer to the champion of a model; None if nothing is published.

    Raises:
        ArtifactError: the pointer is damaged or has an unknown format version.
    """
    key = f"{model_prefix(name)}/{CHAMPION}"
    try:
        champion = cast(Champion, _read(store, key, Champion))
    except NotFoundError:
        return None
    if not VERSION.fullmatch(champion["version"]):
        shown = ascii(champion["version"])[:SHOWN]
        raise ArtifactError(f"{store.address(key)}: version must be {DIGITS} of 0-9 and a-f, but got {shown}.")
    return champion


def write_champion(store: Store, name: str, champion: Champion) -> None:
    """Write the pointer to the champion; readers see the old pointer or the new one."""
    store.write(f"{model_prefix(name)}/{CHAMPION}", json_bytes(champion))


def _is_manifest(key: str) -> bool:
    """Return whether a key is the manifest of a version; a name that could not be asked for is not ours."""
    with contextlib.suppress(InputError):
        check_key(key)
        parts = key.split("/")
        return len(parts) == 4 and parts[3] == MANIFEST
    return False


def _read(store: Store, key: str, kind: type) -> Mapping[str, Any]:
    place = store.address(key)
    content = parse_json(store.read(key, limit_bytes=LARGEST_JSON), place, format_version=FORMAT_VERSION)
    check_fields(place, content, kind)
    return cast(Mapping[str, Any], content)
