"""The exporter's table of operators, made once per process.

torch makes it anew for every export, from the sources of some five hundred functions, which takes longer than the
translation of a small network.
"""

import contextlib
import copy
import functools
from collections.abc import Iterator

from torch.onnx._internal.exporter._registration import ONNXRegistry


@contextlib.contextmanager
def operators_kept() -> Iterator[None]:
    """Let exports in the block take a copy of the table that the first one made."""
    torchs = ONNXRegistry.__dict__["from_torchlib"]
    ONNXRegistry.from_torchlib = staticmethod(_copied)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = torchs  # type: ignore[method-assign]


def _copied(opset_version: int) -> ONNXRegistry:
    made = table(opset_version)
    registry = copy.copy(made)
    registry.functions = {target: list(functions) for target, functions in made.functions.items()}
    return registry


_made_by_torch = ONNXRegistry.from_torchlib


@functools.cache
def table(opset_version: int) -> ONNXRegistry:
    """Return torch's table for a version of its operators."""
    return _made_by_torch(opset_version)
