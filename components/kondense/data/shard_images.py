"""An image within a shard: PPM or PGM, which are its pixels behind a line of text, or PNG. All are lossless.

Shapes: C channels, H height, W width.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kondense.data.picture import as_pixels
from kondense.errors import InputError

PPM, PNG = "ppm", "png"
CHANNELS = (1, 3)
COMPRESSION = 1  # zlib's level: higher ones take three times as long for a few percent
MAGIC = {b"P5": "pgm", b"P6": "ppm", b"\x89P": "png"}  # the first bytes of a file, and its suffix


def encoded(image_CHW: NDArray[np.uint8], encoding: str) -> bytes:
    """Return an image of 1 or 3 channels as a file.

    Args:
        image_CHW: the image.
        encoding: ``ppm`` (PGM for grey images) or ``png``.

    Raises:
        InputError: another number of channels.
    """
    if len(image_CHW) not in CHANNELS:
        raise InputError(f"images in shards must have 1 or 3 channels, but got {len(image_CHW)}; use storage=tensors.")
    pixels_HWC = np.ascontiguousarray(image_CHW.transpose(1, 2, 0))
    if encoding == PPM:
        return header_of(image_CHW.shape) + pixels_HWC.tobytes()
    assert encoding == PNG, encoding
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels_HWC.squeeze(2) if len(image_CHW) == 1 else pixels_HWC).save(
        file, "PNG", compress_level=COMPRESSION
    )
    return file.getvalue()


def suffix_of(content: bytes) -> str:
    """Return the suffix of an image's file."""
    return MAGIC[content[:2]]


def header_of(shape: Sequence[int]) -> bytes:
    """Return the text before the pixels of a PPM or PGM file of an image of this shape, [C, H, W].

    Source: ppm(5) and pgm(5) of Netpbm, the binary forms with 8 bits per channel.
    """
    channels, height, width = shape
    return f"{'P5' if channels == 1 else 'P6'}\n{width} {height}\n255\n".encode()


def decoded(content: memoryview, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return the image of a file, [C, H, W].

    Args:
        content: of the file.
        shape: that the image must have.

    Raises:
        ValueError: it is of another form, or one of ``kondense.data.picture.DAMAGED``.
    """
    channels, height, width = shape
    if bytes(content[:1]) == b"P":
        header = header_of(shape)
        if content[: len(header)] != header or len(content) != len(header) + height * width * channels:
            raise ValueError(f"it begins with {bytes(content[:16])!r} and has {len(content):,} bytes")
        pixels_HWC = np.frombuffer(content, np.uint8, offset=len(header)).reshape(height, width, channels)
        return pixels_HWC.transpose(2, 0, 1)
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        if (image.mode, image.size) != ("L" if channels == 1 else "RGB", (width, height)):
            raise ValueError(f"it is {image.mode} {image.width}x{image.height}")
        return as_pixels(image)
