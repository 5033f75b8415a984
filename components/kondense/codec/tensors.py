"""The forms of a tensor in weights.kz; the encoder chooses the shortest.

All forms are bit-exact, including NaN payloads and negative zeros.
Shapes: a tensor [R, ...] is seen as a matrix of R rows and C columns; N elements of B bytes.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kondense.codec.bytes import LONG, Bytes, Content, decode_planes, encode_planes
from kondense.codec.grid import decode_grid, encode_grid
from kondense.codec.integers import decode_integers, encode_integers, places_save
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
LANES_FROM = 2**20  # elements from which integers and places are coded in lanes
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
    if matrix_RC is not None and matrix_RC.size >= LANES_FROM:
        sparse = places_save(matrix_RC)
        forms["places" if sparse else "lanes"] = encode_integers(matrix_RC, lanes=True, sparse=sparse)
    elif matrix_RC is not None:
        forms["integers"] = encode_integers(matrix_RC)
    elif elements_NB.size > 32:
        large = len(elements_NB) >= LANES_FROM
        nonzeros = int(np.count_nonzero(_nonzero(elements_NB)))
        # Of many elements, most of which are zero, the planes take long and have never been shorter.
        if len(elements_NB) < LONG or nonzeros > len(elements_NB) // 2:
            forms["planes"] = encode_planes(elements_NB)
        grid = encode_grid(elements_NB, dtype, matrix_shape(tuple(tensor.shape)))
        if grid is not None:
            forms["grid"] = grid
        if nonzeros < 0.95 * len(elements_NB):
            forms["scattered" if large else "sparse"] = _encode_sparse(elements_NB, tuple(tensor.shape), lanes=large)
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


def _encode_sparse(elements_NB: Bytes, shape: tuple[int, ...], *, lanes: bool) -> bytes:
    """Encode the places of elements with non-zero bits, and the planes of these elements."""
    places_N = _nonzero(elements_NB)
    places_RC = places_N.astype(np.int16).reshape(matrix_shape(shape))
    places = encode_integers(places_RC, lanes=lanes, sparse=True if lanes else None)
    return b"".join(
        (
            encode_numbers([len(places)]),
            places,
            encode_planes(_as_numbers(elements_NB)[places_N].view(np.uint8).reshape(-1, elements_NB.shape[1])),
        )
    )


def _decode_sparse(content: Content, dtype: str, shape: tuple[int, ...], *, lanes: bool = False) -> Bytes:
    (length,), start = decode_numbers(content, 1)
    if length > len(content) - start:
        raise ArtifactError("a sparse tensor must hold the places of its non-zeros, but they are cut off.")
    view = memoryview(content)  # its slices take no memory
    places_N = decode_integers(view[start : start + length], *matrix_shape(shape), lanes=lanes).reshape(-1) != 0
    count = int(np.count_nonzero(places_N))
    chosen_MB = decode_planes(view[start + length :], count, DTYPES[dtype].itemsize)
    elements_NB = np.zeros((len(places_N), chosen_MB.shape[1]), np.uint8)
    _as_numbers(elements_NB)[places_N] = _as_numbers(chosen_MB)
    return elements_NB


def _as_numbers(elements_NB: Bytes) -> NDArray[Any]:
    """Return the elements as integers [N], or pairs of them: NumPy takes bytes of a row one by one."""
    size = min(elements_NB.shape[1], 8)
    numbers = np.ascontiguousarray(elements_NB).view(f"u{size}")
    return numbers.reshape(-1) if size == elements_NB.shape[1] else numbers


def _nonzero(elements_NB: Bytes) -> NDArray[np.bool_]:
    """Return whether an element has a bit that is set, [N]."""
    places = _as_numbers(elements_NB) != 0
    return places if places.ndim == 1 else places.any(axis=1)


def _decode_scattered(content: Content, dtype: str, shape: tuple[int, ...]) -> Bytes:
    return _decode_sparse(content, dtype, shape, lanes=True)


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
    "places": _decode_lanes,  # the same, but for the version of weights.kz that knows bits in lanes
    "scattered": _decode_scattered,
}
