"""Image files as pixels for a model. NumPy and Pillow only.

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

# Raised by Pillow's decoders on damaged files; UnidentifiedImageError is an OSError.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)
WIDE = {"I;16": 256, "I;16B": 256, "I;16L": 256}  # modes of more than 8 bits, with the divisor to 8 bits


def read_picture(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the image at ``path`` as uint8 of ``shape``.

    As in data prep, it is rotated upright, put on black where transparent, converted to grey or colour, cropped in the
    centre to the model's aspect ratio and resized (bilinear, antialiased).

    Args:
        path: a file that Pillow can read.
        shape: [C, H, W] of the model, C 1 or 3.

    Raises:
        InputError: the file is missing or not an image, or the model does not have 1 or 3 channels.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise InputError(f"the model must have 1 or 3 input channels, but has {channels}.")
    if not path.is_file():
        problem = "is a directory" if path.is_dir() else "is missing"
        raise InputError(f"{path} must be an image file, but {problem}.")
    try:
        with Image.open(path) as image:
            flat = _flat(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise InputError(f"{path} must be an image, but cannot be read: {error}.") from None
    size = (width, height)
    resized = flat if flat.size == size else ImageOps.fit(flat, size, Image.Resampling.BILINEAR)
    pixels_HWC = np.asarray(resized, np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))


def _flat(image: Any) -> Any:
    """Return ``image`` in 8 bits and without transparency."""
    if image.mode in WIDE:
        return Image.fromarray((np.asarray(image) // WIDE[image.mode]).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        layers = image.convert("RGBA")
        black = Image.new("RGBA", layers.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layers).convert("RGB")
    return image
