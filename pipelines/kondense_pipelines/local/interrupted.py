"""The preflight of an interrupted run, which the same command on the same directory takes over."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kondense.files import ArtifactError, read_json, write_json
from kondense.networks.code import code_digests
from kondense.preflight.request import Check, Request

from kondense_pipelines.local.cache import sources_version

FILE, FORMAT_VERSION = "preflight.json", 1


def kept_checks(directory: Path, request: Request) -> list[Check]:
    """Return what was found of the same request, code and libraries before the run in ``directory`` was interrupted.

    It counts until ``run_ended``; trying every step of a network of real size takes minutes.
    """
    try:
        content = read_json(directory / FILE, format_version=FORMAT_VERSION)
        return [Check(**check) for check in content["checks"]] if content.get("key") == _key(request) else []
    except (ArtifactError, LookupError, TypeError):  # none, or a damaged one
        return []


def keep_checks(directory: Path, request: Request, checks: Sequence[Check]) -> None:
    """Keep what was found; what is refused is tried again, since it may have been mended."""
    if not any(check.refused for check in checks):
        content = {"key": _key(request), "checks": [dataclasses.asdict(check) for check in checks]}
        write_json(directory / FILE, {"format_version": FORMAT_VERSION, **content})


def run_ended(directory: Path) -> None:
    """Forget the preflight: the images may be others when a later run is given the same directory."""
    (directory / FILE).unlink(missing_ok=True)


def _key(request: Request) -> str:
    texts = json.loads(request.to_json())
    content = [texts, sources_version(), code_digests(_strings(texts))]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
