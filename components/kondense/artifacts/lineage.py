"""What made an artifact: one record per stage, kept in the artifact itself."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from kondense.config import Config

LIBRARIES = ("torch", "torchvision", "torch-pruning", "onnx", "onnxruntime", "numpy", "kondense")


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
        stage: its name, such as ``prune``.
        config: the full configuration; its ``seed`` is the stage's only source of randomness.
        inputs: digests of the artifacts it read, by role (``dataset``, ``model``, ``teacher``).
        metrics: what it measured, finite numbers.
        summary: the step in words, as the report shows it: ``prune l1 50% of MACs``.
        curves: one mapping per epoch: ``epoch``, ``train_loss``, ``validation_accuracy``, ``learning_rate``.
        details: more that the report shows, such as sparsity by layer before and after.
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
    }


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that shape a result."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # the images install Kondense as source, and the suggestion image has no torch
    return versions
