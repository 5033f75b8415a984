"""The functions of `kondense infer`: find the exported model, label images, print. Without torch."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kondense.artifacts.identity import MODEL_FORMAT, OWN_FILES, directory_identity
from kondense.errors import InputError
from kondense.files import ArtifactError, read_json, verify_files
from kondense.printable import printable
from kondense.scratch import scratch_directory
from kondense.store.open import open_store
from kondense.store.store import Store

from kondense_pipelines.cli.models import CHAMPION, pull_model

ONNX = "model.onnx"
DESCRIPTION = "model.json"


def infer(
    onnx: Path, images: Sequence[Path], *, top: int = 1, threads: int = 1, digest: str = ""
) -> list[dict[str, Any]]:
    """Return the labels that an exported model gives to images.

    Args:
        onnx: the file; nothing else of the model is read.
        images: files of any size; all are read before the model runs.
        top: number of labels per image.
        threads: of onnxruntime.
        digest: of the model that the file must be the export of; "" for any model.

    Returns:
        One mapping per image: ``image`` and ``labels``, a list of {``label``, ``probability``}, most probable first.

    Raises:
        InputError: no image, or a file that is not an image; ``top`` or ``threads`` below 1.
        ArtifactError: the file is not an export of Kondense, or of another model than ``digest``.
    """
    import numpy as np
    from kondense.inference.classifier import open_classifier

    for name, value in (("top", top), ("threads", threads)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, but got {value}.")
    if not images:
        raise InputError("images must name at least one file, but got none.")
    classifier = open_classifier(onnx, threads=threads)
    exported = classifier.metadata["digest"]
    if digest and exported != digest:
        raise ArtifactError(f"{onnx} must be the export of model {digest[:12]}, but is of model {exported[:12]}.")
    pixels_NCHW = np.stack([classifier.picture(path) for path in images])
    labels = classifier.metadata["classes"]
    answers = []
    for path, row_K in zip(images, classifier.classify(pixels_NCHW), strict=True):
        best = np.argsort(-row_K, kind="stable")[:top]
        ranked = [{"label": labels[index], "probability": float(row_K[index])} for index in best]
        answers.append({"image": str(path), "labels": ranked})
    return answers


@contextmanager
def exported_model(model: str, store: Store | None, version: str = CHAMPION) -> Iterator[tuple[Path, str]]:
    """Yield the ONNX file of ``model``, and the digest of the model that it must be the export of ("" for a file).

    Args:
        model: an .onnx file, a Model artifact's directory, a run's directory (its chosen model), the address of an
            artifact in a store, or the name of a published model.
        store: of the published models; None if ``model`` is a path or an address.
        version: of a published model.

    Raises:
        InputError: there is no such model.
        ArtifactError: a file is missing or does not have its digest.
        StoreError: the store cannot be reached.
    """
    path = Path(model)
    if is_local(model):
        yield (path, "") if path.is_file() else _checked(path)
        return
    with scratch_directory("infer") as scratch:
        directory = scratch / "model"
        if "://" in model:
            source = open_store(model)
            if not source.exists(DESCRIPTION):
                raise InputError(f"{model} must be a Model artifact, but has no {DESCRIPTION}.")
            source.download_artifact(directory)
        elif store is None or model.endswith(".onnx") or "/" in model:
            raise InputError(f"{model} must be an ONNX file, a model's directory or a published name, but is missing.")
        else:
            pull_model(store, model, directory, version)
        yield _checked(directory)


def is_local(model: str) -> bool:
    """Return whether ``model`` is a local file or directory."""
    return "://" not in model and Path(model).exists()


def lines(answers: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line per image: its name, then label and probability of each."""
    width = max(len(answer["image"]) for answer in answers)
    return [
        f"{answer['image']:<{width}}  "
        + "  ".join(f"{printable(label['label'])} {100 * label['probability']:.1f} %" for label in answer["labels"])
        for answer in answers
    ]


def as_json(answers: Sequence[dict[str, Any]]) -> str:
    """Return the answers as JSON."""
    return json.dumps(answers, indent=2, ensure_ascii=False)


def _checked(directory: Path) -> tuple[Path, str]:
    """Return the ONNX file of a Model artifact, whose digests are verified, and the model's digest."""
    if not (directory / DESCRIPTION).is_file() and (directory / "chosen" / DESCRIPTION).is_file():
        directory = directory / "chosen"
    description = read_json(directory / DESCRIPTION, format_version=MODEL_FORMAT)
    files = description.get("files")
    if not isinstance(files, dict) or ONNX not in files:
        raise ArtifactError(f"{directory} must have {ONNX}, which the evaluate stage writes, but does not.")
    verify_files(directory, files, own=OWN_FILES)
    return directory / ONNX, directory_identity(directory)
