"""The images and classes that a model is made for."""

import dataclasses
import math
from typing import Annotated, Any, NotRequired, Protocol, TypedDict

from kondense.errors import InputError
from kondense.preprocessing import BILINEAR, LARGEST_IMAGE, Preprocessing


class ImagesDescription(TypedDict):
    """The images and classes of a model."""

    classes: list[str]
    shape: list[Annotated[int, "[1, inf)"]]
    mean: list[float]
    std: list[Annotated[float, "(0, inf)"]]
    resize: NotRequired[list[Annotated[int, "[1, inf)"]]]
    interpolation: NotRequired[str]


class DescribesImages(Protocol):
    """The common attributes of ``Images`` and ``Dataset``."""

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102
    @property
    def mean(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def std(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def resize(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def interpolation(self) -> str: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Images:
    """The images and classes of a model; ``shape`` is (C, H, W), ``mean`` and ``std`` are per channel.

    ``resize`` and ``interpolation`` are as in ``kondense.preprocessing.Preprocessing``.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[int, ...] = ()
    interpolation: str = BILINEAR

    @classmethod
    def of(cls, data: DescribesImages) -> "Images":
        """Return the description of a dataset's images."""
        return cls(data.classes, data.shape, data.mean, data.std, data.resize, data.interpolation)

    @classmethod
    def read(cls, description: "ImagesDescription") -> "Images":
        """Return the images that model.json's ``images`` describes.

        Raises:
            InputError: they break a rule.
        """
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in description.items()
        }
        images = cls(**fields)
        if len(images.shape) != 3 or math.prod(images.shape) > LARGEST_IMAGE or len(images.mean) != images.shape[0]:
            raise InputError(
                f"images must have a shape [C, H, W] of at most {LARGEST_IMAGE} values with mean and std [C], but have"
                f" {list(images.shape)} and {list(images.mean)}."
            )
        _ = images.preprocessing  # checks the rest
        return images

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes an input of the model."""
        return Preprocessing(self.mean, self.std, self.shape[1:], self.resize, self.interpolation)

    def describe(self) -> dict[str, Any]:
        """Return the content of model.json's ``images``; without the usual resizing, so that identities stay."""
        content = {name: list(getattr(self, name)) for name in ("classes", "shape", "mean", "std", "resize")}
        given = content | {"interpolation": self.interpolation}
        return {name: value for name, value in given.items() if value not in ([], BILINEAR)}
