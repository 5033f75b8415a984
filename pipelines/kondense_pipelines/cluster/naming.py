"""Names and descriptions of the versions and runs on Kubeflow's pages."""

import datetime
import re
from collections.abc import Collection, Mapping
from typing import Any

from kondense import version

from kondense_pipelines.cluster.package import Package

NAMING = ("dataset", "network")  # the parameters that distinguish runs
SHORT = 7  # digits of a revision or digest that people read
REVISION_DIGITS = 12
LONGEST = 255  # characters of a run's name or description; KFP's database refuses more


def source_revision() -> str:
    """Return the source revision that the image, the wheel or the checkout states; else the sources' digest."""
    from kondense_pipelines.local.cache import sources_version

    return version.source_revision() or sources_version()


def short_revision(revision: str) -> str:
    """Return a revision as people read it: ``v0.1.0-5-g0506b60c7a12-dirty`` -> ``0506b60-dirty``."""
    match = re.search(rf"(?:^|-g)([0-9a-f]{{{SHORT}}})[0-9a-f]*(-dirty)?$", revision)
    return match[1] + (match[2] or "") if match else revision[:REVISION_DIGITS]


def version_name(package: Package, revision: str) -> str:
    """Return the name of a pipeline's version, which is a DNS name: KFP may keep versions as Kubernetes objects."""
    source = re.sub(r"[^a-z0-9-]+", "-", revision.lower())[:REVISION_DIGITS].strip("-") or "unknown"
    return f"{package.name}-{source}-{package.digest}"


def version_title(package: Package, revision: str, taken: Collection[str]) -> str:
    """Return a version's name on the pages: ``0.1.0 (0506b60)``, with the package's digest if that is taken."""
    start = f"{version.__version__} ({short_revision(revision)}"
    title = f"{start})"
    return f"{start}, package {package.digest[:SHORT]})" if title in taken else title


def run_title(package: Package, parameters: Mapping[str, Any], now: datetime.datetime) -> str:
    """Return a run's name: ``fashion_mnist lenet5 2026-11-28 18:20``, or the pipeline's without such parameters."""
    values = {name: each.get("defaultValue") for name, each in package.parameters.items()} | dict(parameters)
    words = [str(values[name]) for name in NAMING if values.get(name)]
    when = f" {now:%Y-%m-%d %H:%M}"
    return (" ".join(words) or package.name)[: LONGEST - len(when)] + when


def run_description(package: Package, parameters: Mapping[str, Any], revision: str, *, caching: bool = True) -> str:
    """Return how a run differs from its package's defaults, and its source."""
    declared = package.parameters
    changed = [
        f"{name}={value}" for name, value in sorted(parameters.items()) if value != declared[name].get("defaultValue")
    ]
    cache = "" if caching else f", package {package.digest}, without the cache"
    text = f"source revision {short_revision(revision)}{cache}; {', '.join(changed) or 'all defaults'}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
