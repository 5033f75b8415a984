"""What Kubeflow's pages call our pipelines' versions and runs, and how they describe them."""

import datetime
import importlib.metadata
import os
import re
import subprocess
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kondense_pipelines.cluster.package import Package

ROOT = Path(__file__).parents[3]
NAMING = ("dataset", "network")  # the parameters that tell runs apart
SHORT = 7  # digits of a revision or digest that people read
REVISION_DIGITS = 12
LONGEST = 255  # KFP's database holds no longer name or description of a run, and refuses it
GIT_S = 10.0


def source_revision() -> str:
    """Return what names this source: the image's revision, that of the checkout, else the sources' digest."""
    if given := os.environ.get("KONDENSE_REVISION"):
        return given
    if (ROOT / ".git").exists():
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", f"--abbrev={REVISION_DIGITS}"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_S).stdout.strip()
        except (OSError, subprocess.SubprocessError):  # no git here, or a checkout that it refuses
            pass
    from kondense_pipelines.local.cache import sources_version

    return sources_version()


def project_version() -> str:
    """Return this package's version; pyproject.toml's where it is not installed."""
    try:
        return importlib.metadata.version("kondense")
    except importlib.metadata.PackageNotFoundError:
        return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def short_revision(revision: str) -> str:
    """Return a revision as people read it: ``v0.1.0-5-g0506b60c7a12-dirty`` -> ``0506b60-dirty``."""
    match = re.search(rf"(?:^|-g)([0-9a-f]{{{SHORT}}})[0-9a-f]*(-dirty)?$", revision)
    return match[1] + (match[2] or "") if match else revision[:REVISION_DIGITS]


def version_name(package: Package, revision: str) -> str:
    """Return the name of a pipeline's version, which is a DNS name: KFP may keep versions as Kubernetes objects."""
    source = re.sub(r"[^a-z0-9-]+", "-", revision.lower())[:REVISION_DIGITS].strip("-") or "unknown"
    return f"{package.name}-{source}-{package.digest}"


def version_title(package: Package, revision: str, taken: Collection[str]) -> str:
    """Return what the pages call a version: ``0.1.0 (0506b60)``, with the package's digest where that is taken."""
    told = f"{project_version()} ({short_revision(revision)}"
    title = f"{told})"
    return f"{told}, package {package.digest[:SHORT]})" if title in taken else title


def run_title(package: Package, parameters: Mapping[str, Any], now: datetime.datetime) -> str:
    """Return a run's name: ``fashion_mnist lenet5 2026-11-28 18:20``, or the pipeline's where there are no such."""
    values = {name: each.get("defaultValue") for name, each in package.parameters.items()} | dict(parameters)
    told = [str(values[name]) for name in NAMING if values.get(name)]
    when = f" {now:%Y-%m-%d %H:%M}"
    return (" ".join(told) or package.name)[: LONGEST - len(when)] + when


def run_description(package: Package, parameters: Mapping[str, Any], revision: str, *, caching: bool = True) -> str:
    """Return what a run does differently from its package's defaults, and from which source it is."""
    declared = package.parameters
    changed = [
        f"{name}={value}" for name, value in sorted(parameters.items()) if value != declared[name].get("defaultValue")
    ]
    cache = "" if caching else f", package {package.digest}, without the cache"
    text = f"source revision {short_revision(revision)}{cache}; {', '.join(changed) or 'all defaults'}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
