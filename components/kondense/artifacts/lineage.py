"""The lineage of an artifact: one record per stage, saved in the artifact."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from kondense.config import Config
from kondense.version import __version__, source_revision

LIBRARIES = ("torch", "torchvision", "onnx", "onnxruntime", "numpy")


def stage_record(
    stage: str,
    config: Config,
    *,
    inputs: Mapping[str, str],
    metrics: Mapping[str, float],
    summary: str,
    curves: Sequence[Mapping[str, float]] = (),
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the lineage record of one stage.

    Args:
        stage: name of the stage, such as ``prune``.
        config: the full configuration; its ``seed`` is the only source of randomness.
        inputs: digests of the artifacts that the stage read, by role (``dataset``, ``model``, ``teacher``).
        metrics: measured values, finite.
        summary: the step in words for the report: ``prune l1 50% of MACs``.
        curves: one mapping per epoch: ``epoch``, ``train_loss``, ``validation_accuracy``, ``learning_rate``.
        details: further content of the report, such as sparsity by layer before and after.
    """
    return {
        "stage": stage,
        "summary": summary,
        "config": config.to_dict(),
        "inputs": dict(inputs),
        "metrics": dict(metrics),
        "curves": [dict(point) for point in curves],
        "details": dict(details or {}),
        "versions": library_versions(),
        "revision": source_revision(),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of Kondense, Python and the libraries that affect results."""
    versions = {"kondense": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # the suggestion image has no torch
    return versions
