"""Coding of floats that are small integers times one power of two, such as rounded biases, as integers.

Shapes: a tensor seen as a matrix of R rows and C columns; N elements of B bytes.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from kondense.codec.bytes import Bytes
from kondense.codec.integers import decode_integers, encode_integers
from kondense.codec.layout import WIDEST
from kondense.files import ArtifactError

KINDS = {"float32": "<f4", "float64": "<f8", "float16": "<f2"}
EXPONENT = struct.Struct("<h")
# For these exponents 16-bit integers times the power are exact in float32; float16 is checked by value.
LOWEST_EXPONENT, HIGHEST_EXPONENT = -126, 100
FIRST_ELEMENTS = 2**12  # where they are not of this form, the tensor is not


def encode_grid(elements_NB: Bytes, dtype: str, shape: tuple[int, int]) -> bytes | None:
    """Encode the elements as a power of two and a matrix of ``shape``, or return None if they are not of this form."""
    if dtype not in KINDS:
        return None
    values_N = np.ascontiguousarray(elements_NB).view(KINDS[dtype]).reshape(-1)
    if _steps(values_N[:FIRST_ELEMENTS].astype(np.float64)) is None:  # saves the memory of the rest
        return None
    steps = _steps(values_N.astype(np.float64))
    if steps is None or steps[0] > HIGHEST_EXPONENT:
        return None
    exponent, integers_N = steps
    return EXPONENT.pack(exponent) + encode_integers(integers_N.reshape(shape))


def _steps(values_N: NDArray[np.float64]) -> tuple[int, NDArray[np.int16]] | None:
    """Return the exponent of the largest power of two that divides all values, and the quotients, if they are small."""
    if not np.isfinite(values_N).all() or (np.signbit(values_N) & (values_N == 0)).any():
        return None
    exponent = _lowest_bit(values_N)
    if exponent < LOWEST_EXPONENT:
        return None
    with np.errstate(over="ignore"):
        steps_N = np.ldexp(values_N, -exponent)
    low, high = float(steps_N.min()), float(steps_N.max())
    if low <= -(2**15) or high >= 2**15 or high - low >= WIDEST:
        return None
    return exponent, steps_N.astype(np.int16)


def decode_grid(content: bytes, dtype: str, shape: tuple[int, int]) -> Bytes:
    """Decode a matrix of ``shape``; the caller has bounded its size.

    Raises:
        ArtifactError: ``content`` is not valid, or out of the range of ``dtype``.
    """
    if dtype not in KINDS:
        raise ArtifactError(f"a tensor of form grid must be one of {', '.join(KINDS)}, but got {dtype}.")
    exponent = EXPONENT.unpack_from(content)[0] if len(content) >= EXPONENT.size else HIGHEST_EXPONENT + 1
    if not LOWEST_EXPONENT <= exponent <= HIGHEST_EXPONENT:
        raise ArtifactError(
            f"a grid's exponent must be in [{LOWEST_EXPONENT}, {HIGHEST_EXPONENT}], but is {exponent} or cut off."
        )
    steps_RC = decode_integers(content[EXPONENT.size :], *shape)
    with np.errstate(over="ignore"):
        values_N = np.ldexp(steps_RC.reshape(-1).astype(np.float64), exponent).astype(KINDS[dtype])
    if not np.isfinite(values_N).all():
        raise ArtifactError(f"a grid's values must be in the range of {dtype}, but are not.")
    return values_N.reshape(-1, 1).view(np.uint8)


def _lowest_bit(values_N: NDArray[np.float64]) -> int:
    """Return the largest exponent e such that every value is an integer times 2^e; 0 if all are zero."""
    nonzero_N = values_N[values_N != 0]
    if not len(nonzero_N):
        return 0
    fraction_N, exponent_N = np.frexp(nonzero_N)
    mantissa_N = np.ldexp(np.abs(fraction_N), 53).astype(np.int64)
    # A number and its negative share only the lowest bit that is set.
    lowest_N = np.frexp((mantissa_N & -mantissa_N).astype(np.float64))[1] - 1
    return int((exponent_N - 53 + lowest_N).min())
