"""dataset.json of the Dataset artifact."""

from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, cast

from kondense.artifacts.schema import check_fields
from kondense.errors import InputError
from kondense.files import ArtifactError, read_json
from kondense.preprocessing import BILINEAR, check_geometry

FORMAT_VERSION, SHARDS_VERSION = FORMATS = (1, 2)  # of images as tensors, of images in shards


class ShardsDescription(TypedDict):
    """Where the shards are and what they are."""

    place: str  # directory or address; empty: the folder shards beside dataset.json
    window_bytes: Annotated[int, "[1, inf)"]
    files: dict[str, list[list[Any]]]  # by split: name, bytes, SHA-256


class Description(TypedDict):
    """The content of dataset.json without its format version."""

    name: str
    classes: list[str]
    shape: list[Annotated[int, "[1, inf)"]]
    mean: list[float]
    std: list[Annotated[float, "(0, inf)"]]
    splits: dict[str, Annotated[int, "[1, inf)"]]
    seed: int
    source: str
    files: dict[str, str]
    resize: NotRequired[list[Annotated[int, "[1, inf)"]]]
    interpolation: NotRequired[str]
    skipped: NotRequired[dict[str, Annotated[int, "[1, inf)"]]]
    shards: NotRequired[ShardsDescription]


def read_description(path: Path) -> Description:
    """Read and check dataset.json.

    Raises:
        ArtifactError: it is missing or damaged, or has an unknown format version.
    """
    content = read_json(path, format_version=FORMATS)
    if ("shards" in content) != (content["format_version"] == SHARDS_VERSION):
        raise ArtifactError(f"{path} must name shards if its format_version is {SHARDS_VERSION}, and only then.")
    check_fields(str(path), content, Description)
    description = cast(Description, content)
    channels = description["shape"][:1]
    if (
        len(description["shape"]) != 3
        or [len(description["mean"])] != channels
        or [len(description["std"])] != channels
    ):
        raise ArtifactError(
            f"{path} must have a shape [C, H, W] with mean and std [C], but got {description['shape']},"
            f" {description['mean']} and {description['std']}."
        )
    try:
        check_geometry(
            description["shape"][1:], description.get("resize", []), description.get("interpolation", BILINEAR)
        )
    except InputError as error:
        raise ArtifactError(f"{path}: {error}") from error
    return description
