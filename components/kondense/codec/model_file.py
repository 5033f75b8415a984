"""A model as weights.kz: the coded tensors and the structure in model.json."""

import dataclasses
from pathlib import Path

from kondense.artifacts.model import WEIGHTS, Model, baked, decode, describe, encode_state, in_short, structure
from kondense.artifacts.tensors import write_tensors
from kondense.codec import kz
from kondense.files import ArtifactError

KZ = "weights.kz"


def pack_model(model: Model) -> bytes:
    """Return ``model`` as a kz file, without lineage and images, which model.json keeps.

    Raises:
        InputError: as ``save_model``.
    """
    bare = baked(dataclasses.replace(model, lineage=(), images=None))
    return kz.encode(describe(bare, structure(bare)), encode_state(bare))


def unpack_model(content: bytes, *, limit_bytes: int = kz.LIMIT_BYTES) -> Model:
    """Return the model of a kz file, in evaluation mode, with bit-exact weights.

    Raises:
        ArtifactError: the file is damaged, of another version, or describes no model.
    """
    description, tensors = kz.decode(content, limit_bytes=limit_bytes)
    try:
        return decode(description, tensors)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(f"the kz file does not describe a model: {in_short(error)}") from error


def rebuild_weights(directory: Path) -> None:
    """Write the weights of the Model artifact in ``directory`` from its kz file.

    Raises:
        ArtifactError: the kz file is missing, damaged or of another version.
    """
    try:
        with (directory / KZ).open("rb") as file:
            write_tensors(directory / WEIGHTS, dict(kz.read(file)[1]))
    except FileNotFoundError as error:
        raise ArtifactError(f"{directory} must hold {KZ}, but does not.") from error
