"""Read the pickles of the CIFAR batch files without running anything that they name.

A pickle may name any function and have it called. Here three names are known, those of a NumPy array's
reconstruction, and each stands for a function of this module that only notes what the array is. Everything
else that a pickle can make is plain: numbers, texts, bytes, lists, tuples and dicts.
"""

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError

RECONSTRUCT = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
BYTE_TYPES = ("u1", "|u1")
# What a malformed pickle makes the unpickler raise, besides UnpicklingError (pickle's documentation: "and others").
MALFORMED = (
    pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError, MemoryError, OverflowError,
    TypeError, ValueError,
)  # fmt: skip


class _Type:
    """Stands for numpy.dtype."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Ignore the byte order: bytes have none."""


class _Array:
    """Stands for numpy.ndarray and turns its state into a real array."""

    __slots__ = ("array",)
    array: NDArray[np.uint8]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or kind.name not in BYTE_TYPES:
            raise pickle.UnpicklingError("its array is not of unsigned bytes")
        raw = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(raw, bytes) or len(raw) != math.prod(shape):
            raise pickle.UnpicklingError(f"its array of shape {shape} has other bytes")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a known name: a text or a bound method, on which a pickle can set no attribute."""
        known: dict[tuple[str, str], Any] = dict.fromkeys(RECONSTRUCT, self._array)
        known |= {("numpy", "ndarray"): "numpy.ndarray", ("numpy", "dtype"): self._type}
        known |= {("_codecs", "encode"): self._encode}
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch file needs")
        return known[module, name]

    def _array(self, kind: str, shape: object, code: object) -> _Array:
        return _Array()

    def _type(self, name: str, *flags: object) -> _Type:
        return _Type(name)

    def _encode(self, text: str, encoding: str) -> bytes:
        # How Python 3 writes bytes at protocol 2.
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes as {encoding!r}")
        return text.encode("latin1")


def read_batch(path: Path) -> dict[str, Any]:
    """Return the dict in a batch file; byte arrays come as NumPy arrays.

    Raises:
        ValueError: the file is damaged, or names anything but a NumPy array; the text names the file.
    """
    content = path.read_bytes()
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        return {str(key): value.array if isinstance(value, _Array) else value for key, value in batch.items()}
    except MALFORMED as error:
        raise InputError(f"{path} must be a batch file of CIFAR, but: {error}.") from error
