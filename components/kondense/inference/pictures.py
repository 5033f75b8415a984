"""Image files as the pixels that a model takes. NumPy and Pillow only.

Shapes: one image is uint8 [C, H, W].
"""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kondense.errors import InputError

# What Pillow's decoders raise on damaged files; UnidentifiedImageError is an OSError.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)
WIDE = {"I;16": 256, "I;16B": 256, "I;16L": 256}  # modes of more than 8 bits, and what a step of 8 bits is in them


def read_picture(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the image in ``path`` as uint8 of ``shape``.

    It is turned upright, made grey or coloured as the model's channels ask, its transparent parts put on black,
    cropped in the middle to the model's proportions and resized (bilinear, antialiased), as the data prep stage
    does with a folder of images.

    Args:
        path: a file that Pillow reads.
        shape: [C, H, W] of the model, C 1 or 3.

    Raises:
        ValueError: there is no such file, it is no image, or the model takes neither 1 nor 3 channels.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise InputError(f"the model must take images of 1 or 3 channels, but takes {channels}.")
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "is missing"
        raise InputError(f"{path} must be an image file, but it {what}.")
    try:
        with Image.open(path) as image:
            flat = _flat(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise InputError(f"{path} must be an image, but cannot be read: {error}.") from None
    size = (width, height)
    fitted = flat if flat.size == size else ImageOps.fit(flat, size, Image.Resampling.BILINEAR)
    pixels_HWC = np.asarray(fitted, np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))


def _flat(image: Any) -> Any:
    """Return ``image`` in 8 bits and without transparency."""
    if image.mode in WIDE:
        return Image.fromarray((np.asarray(image) // WIDE[image.mode]).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        layers = image.convert("RGBA")
        ground = Image.new("RGBA", layers.size, (0, 0, 0, 255))
        return Image.alpha_composite(ground, layers).convert("RGB")
    return image
