"""The idx format of MNIST: a header of big-endian sizes, then bytes."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError

UNSIGNED_BYTES = 8


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in an idx file, which is compressed if its name ends in ``.gz``.

    Args:
        path: the file.
        dimensions: the required number: 3 for images [N, H, W], 1 for labels [N].

    Raises:
        InputError: the file is damaged or has another format.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} must be a gzip file, but it is damaged: {error}.") from error
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, UNSIGNED_BYTES, dimensions)) or len(content) < header:
        raise InputError(
            f"{path} must be an idx file of unsigned bytes in {dimensions} dimensions, but starts with {content[:4]!r}."
        )
    shape = [int(size) for size in np.frombuffer(content[4:header], ">u4")]
    if len(content) - header != math.prod(shape):
        raise InputError(f"{path} must hold {math.prod(shape)} bytes for {shape}, but holds {len(content) - header}.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
