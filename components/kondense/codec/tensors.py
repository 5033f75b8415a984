"""The forms of a tensor in weights.kz; the encoder chooses the shortest.

All forms are bit-exact, including NaN payloads and negative zeros.
Shapes: a tensor [R, ...] is seen as a matrix of R rows and C columns; N elements of B bytes.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kondense.codec.bytes import LONG, Bytes, decode_planes, encode_planes
from kondense.codec.grid import decode_grid, encode_grid
from kondense.codec.integers import decode_integers, encode_integers, suits_lanes
from kondense.codec.layout import WIDEST
from kondense.codec.numbers import decode_numbers, encode_numbers
from kondense.errors import InputError
from kondense.files import ArtifactError

DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.uint16, torch.uint32, torch.uint64),
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.complex64, torch.complex128),
    )
}
INTEGERS = {"bool": "?", "uint8": "u1", "int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8"}


def encode_tensor(tensor: Tensor) -> tuple[str, bytes]:
    """Return the shortest form of ``tensor`` and its content.

    Raises:
        ValueError: a dtype that is not in DTYPES.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise InputError(f"a tensor's dtype must be one of {', '.join(DTYPES)}, but got {dtype}.")
    if not tensor.numel():
        return "raw", b""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    elements_NB = flat.view(torch.uint8).numpy().reshape(flat.numel(), flat.element_size())
    forms: dict[str, bytes] = {}
    matrix_RC = _integer_matrix(elements_NB, dtype, tuple(tensor.shape))
    if matrix_RC is not None and suits_lanes(matrix_RC):
        forms["lanes"] = encode_integers(matrix_RC, lanes=True)
    elif matrix_RC is not None:
        forms["integers"] = encode_integers(matrix_RC)
    elif elements_NB.size > 32:
        nonzeros = int(np.count_nonzero(elements_NB.any(axis=1)))
        # Of many elements, most of which are zero, the planes take long and have never been shorter.
        if len(elements_NB) < LONG or nonzeros > len(elements_NB) // 2:
            forms["planes"] = encode_planes(elements_NB)
        grid = encode_grid(elements_NB, dtype, matrix_shape(tuple(tensor.shape)))
        if grid is not None:
            forms["grid"] = grid
        if nonzeros < 0.95 * len(elements_NB):
            forms["sparse"] = _encode_sparse(elements_NB, tuple(tensor.shape))
    form = min(forms, key=lambda name: len(forms[name]), default="raw")
    if form == "raw" or len(forms[form]) >= elements_NB.size:
        return "raw", elements_NB.tobytes()
    return form, forms[form]


def decode_tensor(form: str, content: bytes, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor of ``encode_tensor``; the caller has bounded its size.

    Raises:
        ArtifactError: unknown form, or invalid content.
    """
    if form not in FORMS:
        raise ArtifactError(f"a tensor's form must be one of {', '.join(FORMS)}, but got {form!r}.")
    elements_NB = FORMS[form](content, dtype, shape)
    if dtype == "bool" and elements_NB.size and int(elements_NB.max()) > 1:
        raise ArtifactError(f"a bool tensor must hold 0 and 1, but got {int(elements_NB.max())}.")
    if not elements_NB.size:
        return torch.empty(shape, dtype=DTYPES[dtype])
    flat = torch.from_numpy(np.require(elements_NB, requirements=["C", "W"]).reshape(-1))
    return flat.view(DTYPES[dtype]).reshape(shape)


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the rows and columns of a tensor's matrix; a vector is one row."""
    return (1, math.prod(shape)) if len(shape) < 2 else (shape[0], math.prod(shape[1:]))


def _integer_matrix(elements_NB: Bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[np.int16] | None:
    """Return the tensor as a matrix of small integers, or None if it is not one or very small."""
    if dtype not in INTEGERS or len(elements_NB) < 16:
        return None
    values = np.ascontiguousarray(elements_NB).view(INTEGERS[dtype])
    low, high = int(values.min()), int(values.max())
    if low <= -(2**15) or high >= 2**15 or high - low >= WIDEST:
        return None
    return values.astype(np.int16).reshape(matrix_shape(shape))


def _decode_integers(content: bytes, dtype: str, shape: tuple[int, ...], *, lanes: bool = False) -> Bytes:
    if dtype not in INTEGERS:
        raise ArtifactError(f"a tensor of form integers must be one of {', '.join(INTEGERS)}, but got {dtype}.")
    matrix_RC = decode_integers(content, *matrix_shape(shape), lanes=lanes)
    kind = np.dtype(INTEGERS[dtype])
    if kind.kind != "b" and matrix_RC.size:
        limits = np.iinfo(kind)
        if int(matrix_RC.min()) < limits.min or int(matrix_RC.max()) > limits.max:
            raise ArtifactError(f"a tensor of {dtype} must hold values in its range, but does not.")
    return matrix_RC.astype(kind).reshape(-1, 1).view(np.uint8)


def _decode_lanes(content: bytes, dtype: str, shape: tuple[int, ...]) -> Bytes:
    return _decode_integers(content, dtype, shape, lanes=True)


def _encode_sparse(elements_NB: Bytes, shape: tuple[int, ...]) -> bytes:
    """Encode the places of elements with non-zero bits, and the planes of these elements."""
    places_N = elements_NB.any(axis=1)
    places = encode_integers(places_N.astype(np.int16).reshape(matrix_shape(shape)))
    return encode_numbers([len(places)]) + places + encode_planes(elements_NB[places_N])


def _decode_sparse(content: bytes, dtype: str, shape: tuple[int, ...]) -> Bytes:
    (length,), start = decode_numbers(content, 1)
    if length > len(content) - start:
        raise ArtifactError("a sparse tensor must hold the places of its non-zeros, but they are cut off.")
    places = content[start : start + length]
    places_N = decode_integers(places, *matrix_shape(shape)).reshape(-1) != 0
    elements_NB = np.zeros((math.prod(shape), DTYPES[dtype].itemsize), np.uint8)
    count = int(np.count_nonzero(places_N))
    elements_NB[places_N] = decode_planes(content[start + length :], count, elements_NB.shape[1])
    return elements_NB


def _decode_grid(content: bytes, dtype: str, shape: tuple[int, ...]) -> Bytes:
    return decode_grid(content, dtype, matrix_shape(shape))


def _decode_planes(content: bytes, dtype: str, shape: tuple[int, ...]) -> Bytes:
    return decode_planes(content, math.prod(shape), DTYPES[dtype].itemsize)


def _decode_raw(content: bytes, dtype: str, shape: tuple[int, ...]) -> Bytes:
    size = math.prod(shape) * DTYPES[dtype].itemsize
    if len(content) != size:
        raise ArtifactError(f"a tensor of {dtype} {list(shape)} must have {size} bytes, but got {len(content)}.")
    return np.frombuffer(content, np.uint8).copy()


FORMS: dict[str, Callable[[bytes, str, tuple[int, ...]], Bytes]] = {
    "raw": _decode_raw,
    "planes": _decode_planes,
    "sparse": _decode_sparse,
    "integers": _decode_integers,
    "grid": _decode_grid,
    "lanes": _decode_lanes,
}
