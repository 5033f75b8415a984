"""What is kept between calls because it takes long to make again: the least recently used goes first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Memory(Generic[Value]):
    """A bounded number of values, which several threads may ask for.

    Args:
        most: total size of the values, in the unit of `put`; a larger value is not kept.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._lock, self._kept = threading.Lock(), OrderedDict[Hashable, tuple[Value, int]]()

    def __len__(self) -> int:
        """Return the total size of the values that are kept."""
        with self._lock:
            return self._size

    def get(self, key: Hashable) -> Value | None:
        """Return the value that was put for a key last; None if it is not kept."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value in place of the key's last one."""
        with self._lock:
            self._size -= self._kept.pop(key, (value, 0))[1]
            if size > self._most:
                return
            self._kept[key] = value, size
            self._size += size
            while self._size > self._most:
                self._size -= self._kept.popitem(last=False)[1][1]
