"""The ``metadata_props`` of an exported ONNX file: JSON values by key. Stdlib only.

They are sufficient to run the file: the labels, the preprocessing of images, and the identity of the model.
"""

import json
import math
from collections.abc import Mapping
from typing import Annotated, Literal, NotRequired, TypedDict, cast

from kondense.artifacts.measurements import Runtimes
from kondense.artifacts.schema import check_fields
from kondense.errors import InputError
from kondense.files import ArtifactError
from kondense.json_text import json_value
from kondense.preprocessing import BILINEAR, LARGEST_IMAGE, check_geometry

FORMAT_VERSION = 1
FLOAT, UINT8 = "float32", "uint8"
INPUTS = (FLOAT, UINT8)
Input = Literal["float32", "uint8"]


class Metadata(TypedDict):
    """The metadata of one file.

    ``shape`` is that of one image, [C, H, W]. A ``uint8`` input takes pixels; a ``float32`` input takes
    (pixel / 255 - mean) / std per channel. ``resize`` and ``interpolation`` are what comes before the central crop to
    ``shape``, see ``kondense.preprocessing.Preprocessing``. ``arithmetic`` is that of the layers: ``integer``, or
    ``float`` if weights are floats after loading. ``digest`` is the model's identity (``kondense.artifacts.identity``),
    the same as in its artifact. ``runtimes`` says what serves the file (``kondense.export.runtimes``).
    """

    format_version: int
    classes: list[str]
    shape: list[Annotated[int, "[1, inf)"]]
    mean: list[float]
    std: list[Annotated[float, "(0, inf)"]]
    network: str
    input: str
    arithmetic: str
    opset: Annotated[int, "[1, inf)"]
    digest: str
    resize: NotRequired[list[Annotated[int, "[1, inf)"]]]
    interpolation: NotRequired[str]
    runtimes: NotRequired[Runtimes]


def parse_metadata(entries: Mapping[str, str], place: str = "the ONNX file") -> Metadata:
    """Return the checked metadata of an ONNX file.

    Args:
        entries: ``metadata_props`` by key.
        place: name of the file in errors.

    Raises:
        ArtifactError: the file is not from Kondense, or breaks a rule; the text gives key, rule and value.
    """
    content = {key: _value(place, key, text) for key, text in entries.items() if key in Metadata.__annotations__}
    if content.get("format_version") != FORMAT_VERSION:
        version = content.get("format_version")
        raise ArtifactError(f"{place} must have metadata of format_version {FORMAT_VERSION}, but got {version}.")
    check_fields(f"{place}: metadata", content, Metadata)
    metadata = cast(Metadata, content)
    shape, channels = metadata["shape"], metadata["shape"][:1]
    if len(shape) == 3 and math.prod(shape) > LARGEST_IMAGE:
        raise ArtifactError(f"{place}: metadata must have images of at most {LARGEST_IMAGE} values, but got {shape}.")
    if len(shape) != 3 or [len(metadata["mean"])] != channels or [len(metadata["std"])] != channels:
        raise ArtifactError(
            f"{place}: metadata must have a shape [C, H, W] with mean and std [C], but got {shape},"
            f" {metadata['mean']} and {metadata['std']}."
        )
    try:
        check_geometry(shape[1:], metadata.get("resize", []), metadata.get("interpolation", BILINEAR))
    except InputError as error:
        raise ArtifactError(f"{place}: metadata: {error}") from None
    if not metadata["classes"]:
        raise ArtifactError(f"{place}: metadata must name at least one class, but got none.")
    if metadata["input"] not in INPUTS:
        raise ArtifactError(f"{place}: metadata input must be {' or '.join(INPUTS)}, but got {metadata['input']!r}.")
    return metadata


def metadata_entries(metadata: Metadata) -> dict[str, str]:
    """Return ``metadata`` as strings by key, the inverse of ``parse_metadata``."""
    return {key: json.dumps(value) for key, value in metadata.items()}


def _value(place: str, key: str, text: str) -> object:
    value: object = json_value(text, f"{place}: metadata {key}")
    return value
