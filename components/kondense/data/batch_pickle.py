"""Read the pickles of the CIFAR batch files without an unpickler: a pickle is a program, and this runs a part of any.

Known are the steps that make numbers, texts, bytes, lists, tuples and dicts, and the calls that reconstruct a NumPy
array of bytes, which are recorded and not made. Each step takes the memory of its own bytes; the bytes that steps copy
are bounded by the size of the file.
"""

import math
import os
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError
from kondense.files import open_file

RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
ARRAY, TYPE, ENCODE = "numpy.ndarray", "numpy.dtype", "_codecs.encode"
BYTE_TYPES = ("u1", "|u1")
MOST_DIMENSIONS = 4
MOST_BYTES = 2**28  # of a file; the largest of CIFAR has 155 MB
LARGEST_INTEGER = 2**63 - 1
KEYS = (str, bytes, int)
SHOWN = 60  # characters of a value in an error

VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES",
    "BINBYTES8",
})  # fmt: skip
CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: Mapping[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS, GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
IGNORED = ("PROTO", "FRAME")


class _MalformedError(ValueError):
    """The pickle is no batch file."""


class _Name:
    """A module's attribute that the pickle names."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if name not in (*RECONSTRUCT, ARRAY, TYPE, ENCODE):
            raise _MalformedError(f"it names {name[:SHOWN]}, which no batch file needs")
        self.name = name


class _Type:
    """Stands for a numpy.dtype."""

    __slots__ = ("name",)

    def __init__(self, name: object) -> None:
        self.name = name


class _Array:
    """Stands for a numpy.ndarray, until its state is known."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: NDArray[np.uint8] | None = None


class _Machine:
    """The stack, the marks and the memo of a pickle; ``budget`` bytes may be copied."""

    def __init__(self, budget: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.budget = budget

    def run(self, content: bytes) -> Any:
        """Run the steps of ``content`` and return what is left."""
        for step, argument, _ in pickletools.genops(content):
            if step.name == "STOP":
                return self.pop()
            self.take(step.name, argument)
        raise _MalformedError("it has no end")

    def take(self, name: str, argument: Any) -> None:
        if name in VALUES:
            if isinstance(argument, int) and abs(argument) > LARGEST_INTEGER:
                raise _MalformedError("it holds an integer of more than 63 bits")
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name in TUPLES:
            self.stack.append(tuple(self.pop_many(TUPLES[name])))
        elif name in PUTS:
            self.memo[int(argument)] = self.top()
        elif name in GETS:
            self.stack.append(self.memo[int(argument)])
        elif name not in IGNORED:
            step = STEPS.get(name)
            if step is None:
                raise _MalformedError(f"it has a step {name}, which no batch file needs")
            step(self, argument)

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _MalformedError("it takes a value that is not there")
        return self.stack[-1]

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise _MalformedError("it lacks a mark")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.top()

    def name(self, argument: str) -> None:
        self.stack.append(_Name(argument.replace(" ", ".", 1)))

    def name_on_stack(self, _: Any) -> None:
        parts = self.pop_many(2)
        if not all(isinstance(part, str) for part in parts):
            raise _MalformedError("it names no module")
        self.stack.append(_Name(".".join(parts)))

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise _MalformedError(f"it adds to {type(target).__name__} as to a list")
        target += values

    def set_items(self, values: list[Any]) -> None:
        target, keys = self.top(), values[::2]
        if type(target) is not dict or len(values) % 2:
            raise _MalformedError(f"it adds to {type(target).__name__} as to a dict")
        if not all(type(key) in KEYS for key in keys):
            raise _MalformedError("it has a key that is no text")
        target.update(zip(keys, values[1::2], strict=True))

    def new_dict(self, _: Any) -> None:
        values = self.since_mark()
        self.stack.append({})
        self.set_items(values)

    def reduce(self, _: Any) -> None:
        function, arguments = self.pop_many(2)
        if not isinstance(function, _Name) or type(arguments) is not tuple:
            raise _MalformedError("it calls what is no function")
        if function.name in RECONSTRUCT:
            self.stack.append(_Array())
        elif function.name == TYPE and arguments:
            self.stack.append(_Type(arguments[0]))
        elif function.name == ENCODE and len(arguments) == 2 and arguments[1] == "latin1":
            self.stack.append(self.encoded(arguments[0]))  # Python 3 writes bytes so at protocol 2
        else:
            raise _MalformedError(f"it calls {function.name} with other arguments than a batch file")

    def encoded(self, text: Any) -> bytes:
        if not isinstance(text, str):
            raise _MalformedError(f"it encodes {type(text).__name__} as a text")
        self.budget -= len(text)
        if self.budget < 0:
            raise _MalformedError("its arrays hold more bytes than the file")
        return text.encode("latin1")

    def build(self, _: Any) -> None:
        target, state = self.pop_many(2)
        self.stack.append(target)
        if isinstance(target, _Array):
            target.array = self.array(state)
        elif not isinstance(target, _Type):  # whose state is the byte order, which bytes do not have
            raise _MalformedError(f"it changes a {type(target).__name__}")

    def array(self, state: Any) -> NDArray[np.uint8]:
        if type(state) is not tuple or len(state) != 5:
            raise _MalformedError("its array has no state")
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or kind.name not in BYTE_TYPES:
            raise _MalformedError("its array does not hold unsigned bytes")
        sizes = shape if type(shape) is tuple and len(shape) <= MOST_DIMENSIONS else ("?",)
        raw = content if isinstance(content, bytes) else self.encoded(content)
        if not all(type(size) is int and size >= 0 for size in sizes) or len(raw) != math.prod(sizes):
            raise _MalformedError(f"its array of shape {list(sizes)} has the wrong size")
        return np.frombuffer(raw, np.uint8).reshape(sizes, order="F" if fortran else "C")


STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "DICT": _Machine.new_dict,
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_many(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}


def read_batch(path: Path) -> dict[str, Any]:
    """Return the dict in a batch file, with byte arrays as NumPy arrays.

    Raises:
        InputError: the file is damaged, or holds anything but plain values and NumPy arrays of bytes.
    """
    with open_file(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
            raise InputError(f"{path} must be a batch file of at most {MOST_BYTES:,} bytes, but has {size:,}.")
        content = file.read(size)
    try:
        batch = _Machine(len(content)).run(content)
    except KeyError as error:
        raise InputError(f"{path} must be a batch file of CIFAR, but: it has no value {error} in its memo.") from None
    except ValueError as error:  # those of pickletools, too
        text = " ".join(str(error).split())[:200]
        raise InputError(f"{path} must be a batch file of CIFAR, but: {text}.") from error
    if not isinstance(batch, dict):
        raise InputError(f"{path} must be a batch file of CIFAR, but: it holds a {type(batch).__name__}, not a dict.")
    for key, value in batch.items():
        if isinstance(value, _Array) and value.array is None:
            raise InputError(f"{path} must be a batch file of CIFAR, but: its array {key!r} has no state.")
    return {_text(key): value.array if isinstance(value, _Array) else value for key, value in batch.items()}


def _text(key: str | bytes | int) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
