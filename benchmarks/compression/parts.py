"""The parts of the benchmark; a part is a module with a list ENTRIES."""

from collections.abc import Mapping
from types import ModuleType

PARTS: Mapping[str, ModuleType] = {}
