"""What the exporter does before it translates a program, without doing the same again.

torch makes its table of operators anew for every export, from the sources of some five hundred functions, and traces
every program a second time; either takes longer than the translation.
"""

import contextlib
import copy
import functools
import types
from collections.abc import Iterator

import torch
from onnxscript.function_libs.torch_lib import registration
from torch.onnx._internal.exporter import _decomp, _fx_passes, _registration
from torch.onnx._internal.exporter._registration import ONNXRegistry

from kondense.export.functional import make_functional
from kondense.heap import uncollected


@contextlib.contextmanager
def operators_kept() -> Iterator[None]:
    """Let exports in the block take a copy of the table that the first one made, and trace once where that suffices."""
    torchs, decompose = ONNXRegistry.__dict__["from_torchlib"], _fx_passes.decompose_with_registry
    ONNXRegistry.from_torchlib = staticmethod(_copied)  # type: ignore[method-assign,assignment]
    _fx_passes.decompose_with_registry = _functional
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = torchs  # type: ignore[method-assign]
        _fx_passes.decompose_with_registry = decompose


def _copied(opset_version: int) -> ONNXRegistry:
    made = table(opset_version)
    registry = copy.copy(made)
    registry.functions = {target: list(functions) for target, functions in made.functions.items()}
    return registry


_made_by_torch = ONNXRegistry.from_torchlib


@functools.cache
def table(opset_version: int) -> ONNXRegistry:
    """Return torch's table for a version of its operators."""
    given = vars(_registration)["onnxscript_apis"]
    vars(_registration)["onnxscript_apis"] = types.SimpleNamespace(get_torchlib_ops=_functions)
    try:
        with uncollected():
            return _made_by_torch(opset_version)
    finally:
        vars(_registration)["onnxscript_apis"] = given


def _functions() -> list[types.SimpleNamespace]:
    """Return what onnxscript's ``get_torchlib_ops`` does, but for what it reads off the functions' sources."""
    from onnxscript.function_libs.torch_lib import ops  # noqa: F401  # which registers them

    return [
        types.SimpleNamespace(qualified_name=name, function=function, is_complex=is_complex)
        for name, registered in registration.default_registry.items()
        if not name.startswith("internal::")
        for is_complex, functions in ((False, registered.overloads), (True, registered.complex))
        for function in functions
    ]


def _functional(exported_program: torch.export.ExportedProgram, registry: ONNXRegistry) -> torch.export.ExportedProgram:
    """Return a program in operators that the exporter translates; the one given may be changed."""
    program = exported_program
    known = {functions[0].fx_target for functions in registry.functions.values()}
    rewritten = _decomp.create_onnx_friendly_decomposition_table(known)
    return program if make_functional(program, known, rewritten) else program.run_decompositions(rewritten)
