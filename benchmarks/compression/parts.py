"""The parts of the benchmark; a part is a module with a list ENTRIES."""

from collections.abc import Mapping
from types import ModuleType

from benchmarks.compression import students

PARTS: Mapping[str, ModuleType] = {
    "students": students,
}
