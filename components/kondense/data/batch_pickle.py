"""Read the pickles of the CIFAR batch files without running any code that they name.

A pickle can call any function. Here only the names that reconstruct a NumPy array are known, and each stands for a
function of this module that records the array. All other objects that a pickle can create are plain: numbers, texts,
bytes, lists, tuples and dicts.
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
# The errors of the unpickler on a malformed pickle (pickle's documentation: "and others").
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
        """Ignore the byte order, which bytes do not have."""


class _Array:
    """Stands for numpy.ndarray and converts its state to an array."""

    __slots__ = ("array",)
    array: NDArray[np.uint8]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or kind.name not in BYTE_TYPES:
            raise pickle.UnpicklingError("its array does not hold unsigned bytes")
        raw = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(raw, bytes) or len(raw) != math.prod(shape):
            raise pickle.UnpicklingError(f"its array of shape {shape} has the wrong size")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the substitute of a known name: a text or a bound method, whose attributes a pickle cannot set."""
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
        # Python 3 writes bytes so at protocol 2.
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes as {encoding!r}")
        return text.encode("latin1")


def read_batch(path: Path) -> dict[str, Any]:
    """Return the dict in a batch file, with byte arrays as NumPy arrays.

    Raises:
        InputError: the file is damaged, or names anything but a NumPy array.
    """
    content = path.read_bytes()
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        return {str(key): value.array if isinstance(value, _Array) else value for key, value in batch.items()}
    except MALFORMED as error:
        raise InputError(f"{path} must be a batch file of CIFAR, but: {error}.") from error
