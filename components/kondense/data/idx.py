"""The idx format of MNIST: a header of big-endian sizes, then bytes."""

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError
from kondense.files import open_file

UNSIGNED_BYTES = 8
LEAST_BOUND = 2**26  # bytes that a compressed file may always hold,
MOST_COMPRESSED = 20  # and times its own size; deflate reaches 1,000 with zeros, pictures of digits 5


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in an idx file, which is compressed if its name ends in ``.gz``.

    Memory is taken for what the header states, which the file must be large enough to hold, and never for more.

    Args:
        path: the file.
        dimensions: the required number: 3 for images [N, H, W], 1 for labels [N].

    Raises:
        InputError: the file is damaged or has another format.
    """
    compressed = path.suffix == ".gz"
    size = path.stat().st_size
    most = max(LEAST_BOUND, MOST_COMPRESSED * size) if compressed else size
    try:
        with open_file(path) as plain, gzip.open(plain) if compressed else plain as file:
            return _read(file, path, dimensions, most)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} must be a gzip file, but it is damaged: {error}.") from error


def _read(file: io.BufferedIOBase, path: Path, dimensions: int, most: int) -> NDArray[np.uint8]:
    size = 4 + 4 * dimensions
    header = file.read(size)
    if header[:4] != bytes((0, 0, UNSIGNED_BYTES, dimensions)) or len(header) < size:
        raise InputError(
            f"{path} must be an idx file of unsigned bytes in {dimensions} dimensions, but starts with {header[:4]!r}."
        )
    shape = [int(length) for length in np.frombuffer(header[4:], ">u4")]
    wanted = math.prod(shape)
    if wanted > most:
        raise InputError(f"{path} must hold {wanted} bytes for {shape}, but can hold {most} at most.")
    array = np.empty(wanted, np.uint8)
    present = 0
    while count := file.readinto(array.data[present:]) if present < wanted else 0:
        present += count
    excess = file.read(1)
    if present < wanted or excess:
        held = f"{present}" if present < wanted else "more"
        raise InputError(f"{path} must hold {wanted} bytes for {shape}, but holds {held}.")
    return array.reshape(shape)
