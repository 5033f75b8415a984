"""The one decoder of picture files, for data sets and for inference: NumPy and Pillow only.

Shapes: C channels, H height, W width. An image is uint8 [C, H, W].
"""

import dataclasses
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError
from kondense.files import ArtifactError, open_file
from kondense.preprocessing import BILINEAR, check_geometry, in_words

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow has forty; its EPS starts another program
GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
WIDE_MODES = GREY_MODES[4:]  # 16 bits, of which the upper 8 are taken, as Pillow does with 16 bits per colour
DEEP_PGM = ("I", "PPM")  # mode and format of 16-bit PGM files; in other files, mode I has 32 bits of unknown range
ORIENTATION = 0x0112  # EXIF's tag; from 5 on, width and height are exchanged
# Errors of Pillow's decoders on damaged files; UnidentifiedImageError is an OSError.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)


class PictureError(InputError):
    """A file is no picture, is damaged, or is too large; the text names it in one line."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The form that pictures are brought to.

    Attributes:
        size: height and width in pixels, after the crop; () keeps them.
        channels: 1 for grey, 3 for colour; 0 keeps them.
        resize: sizes before the crop, see ``kondense.preprocessing.Preprocessing``.
        interpolation: of the resizing.

    Raises:
        InputError: sizes or filter that ``Preprocessing`` rejects, or a ``resize`` without a size.
    """

    size: tuple[int, ...] = ()
    channels: int = 0
    resize: tuple[int, ...] = ()
    interpolation: str = BILINEAR

    def __post_init__(self) -> None:
        check_geometry(self.size, self.resize, self.interpolation)
        if self.resize and not self.size:
            raise InputError(f"resize={in_words(self.resize)} needs image_size, the size of the crop, but it is 0.")


def sides(name: str, value: Any) -> tuple[int, ...]:
    """Return a size in pixels as ``Geometry`` takes it: (side,), (height, width), or () for 0.

    Raises:
        InputError: ``value`` is neither a whole number nor one or two of them; the text calls it ``name``.
    """
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    whole = all(isinstance(each, int | np.integer) and not isinstance(each, bool) for each in values)
    if not whole or len(values) > 2:
        raise InputError(f"{name} must be a whole number of pixels, or (height, width), but got {value!r:.80}.")
    return () if values == (0,) else tuple(map(int, values))


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the head of a file says: the upright picture's height and width, and whether it is grey."""

    height: int
    width: int
    grey: bool


def decode(path: Path, geometry: Geometry, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the picture at ``path`` as uint8 [C, H, W].

    The first frame is turned upright (EXIF), reduced to 8 bits, put on black where it is transparent, made grey or
    coloured, resized and cropped.

    Raises:
        PictureError: it cannot be read, or has more than ``max_pixels`` pixels.
    """
    from PIL import ImageOps

    with _opened(path, max_pixels) as image:
        tiles = getattr(image, "tile", ())
        if image.mode == "RGB" and tiles and str(tiles[0][3]).endswith("16B"):
            # Pillow compares this 16-bit colour with 8-bit pixels: other pixels would become transparent.
            image.info.pop("transparency", None)
        upright = ImageOps.exif_transpose(image)
        _check_resized(path, upright.size, geometry, max_pixels)
        flat = _flat(upright).convert("L" if geometry.channels == 1 else "RGB")
    return as_pixels(fitted(flat, geometry))


def facts(path: Path, *, max_pixels: int = MAX_PIXELS) -> Facts:
    """Return size and kind of the picture at ``path``, without decoding its pixels.

    Raises:
        PictureError: as ``decode``, as far as the file's head shows it.
    """
    with _opened(path, max_pixels) as image:
        width, height = image.size
        if int(image.getexif().get(ORIENTATION, 1)) in range(5, 9):
            width, height = height, width
        return Facts(height, width, image.mode in (*GREY_MODES, "I"))


def fitted(image: "Image.Image", geometry: Geometry) -> "Image.Image":
    """Return ``image`` resized and cropped; the channels stay.

    Source: for a ``resize``, torchvision.transforms.Resize and CenterCrop with the same rounding; else ImageOps.fit.
    """
    from PIL import Image, ImageOps

    if not geometry.size:
        return image
    (height, width), method = geometry.size, Image.Resampling[geometry.interpolation.upper()]
    size = (width, height)
    if not geometry.resize:
        return image if image.size == size else ImageOps.fit(image, size, method)
    target = _resized(image.size, geometry.resize)
    if image.size != target:
        image = image.resize(target, method)
    return image if image.size == size else _center(image, size)


def as_pixels(image: "Image.Image") -> NDArray[np.uint8]:
    """Return an image of mode L or RGB as [C, H, W]."""
    pixels = np.asarray(image, np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def shown(path: object) -> str:
    """Return a path for an error: in one line, even if its name holds line feeds or no valid text."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def one_line(error: object) -> str:
    """Return an error's text in one line of readable length, printable."""
    return shown(" ".join(str(error).split())[:200]) or type(error).__name__


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator["Image.Image"]:
    """Yield the picture, not decoded yet; errors of Pillow within the block become a PictureError."""
    from PIL import Image

    try:
        with open_file(path) as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise PictureError(
                    f"{shown(path)} must have at most {max_pixels} pixels (max_pixels), but has"
                    f" {image.width}x{image.height}."
                )
            if image.mode not in GREY_MODES + COLOUR_MODES and (image.mode, image.format) != DEEP_PGM:
                raise PictureError(f"{shown(path)} must have 8 or 16 bits per channel, but has mode {image.mode}.")
            yield image
    except PictureError:
        raise
    except ArtifactError as error:
        raise PictureError(shown(error)) from None
    except Image.DecompressionBombError:
        raise PictureError(f"{shown(path)} must have at most {max_pixels} pixels (max_pixels), but has more.") from None
    except DAMAGED as error:
        raise PictureError(f"{shown(path)} must be an image, but {_problem(path, error)}.") from error


def _check_resized(path: Path, size: tuple[int, int], geometry: Geometry, max_pixels: int) -> None:
    """Raise PictureError if the resized picture is too large: one of 1x50,000 grows to 256x12,800,000."""
    width, height = _resized(size, geometry.resize) if geometry.resize else size
    if width * height > max_pixels:
        raise PictureError(
            f"{shown(path)} must have at most {max_pixels} pixels (max_pixels) after"
            f" resize={in_words(geometry.resize)}, but has {width}x{height}."
        )


def _problem(path: Path, error: BaseException) -> str:
    if path.is_symlink() and not path.exists():
        return "is a link to a missing file"
    if not path.is_file():
        return "is a directory" if path.is_dir() else "is missing"
    if not path.stat().st_size:
        return "is empty"
    text = one_line(error).replace(str(path), path.name)
    return "cannot be read: " + ("it is of no known format" if "cannot identify" in text else text)


def _flat(image: Any) -> Any:
    """Return ``image`` in 8 bits, and on black instead of transparency."""
    from PIL import Image

    transparent = image.info.get("transparency")
    if image.mode in (*WIDE_MODES, "I"):
        levels_HW = np.asarray(image)
        if isinstance(transparent, int):
            levels_HW = np.where(levels_HW == transparent, 0, levels_HW)
        return Image.fromarray((levels_HW >> 8).astype(np.uint8))
    if image.mode not in ("RGBa", "La", "PA") and "A" not in image.getbands() and transparent is None:
        return image
    layers = _layers(image)
    return Image.alpha_composite(Image.new("RGBA", layers.size, (0, 0, 0, 255)), layers).convert("RGB")


def _layers(image: Any) -> Any:
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA")


def _resized(size: tuple[int, int], resize: Sequence[int]) -> tuple[int, int]:
    """Return width and height after ``resize``; an integer division as in torchvision for the longer side."""
    if len(resize) == 2:
        return resize[1], resize[0]
    width, height = size
    side = resize[0]
    return (side, int(side * height / width)) if width <= height else (int(side * width / height), side)


def _center(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """Return the centre of ``image``; where it is smaller than ``size``, black is added around it."""
    lacking = [max(0, wanted - present) for wanted, present in zip(size, image.size, strict=True)]
    if any(lacking):
        width, height = (present + more for present, more in zip(image.size, lacking, strict=True))
        image = image.crop((-(lacking[0] // 2), -(lacking[1] // 2), width - lacking[0] // 2, height - lacking[1] // 2))
    left, top = (round((present - wanted) / 2.0) for wanted, present in zip(size, image.size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))
