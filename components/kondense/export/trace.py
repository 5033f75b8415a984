"""Trace a network as a ``torch.export`` program, and name the module at which tracing or translation fails.

Images are [N, C, H, W]; N is dynamic.
"""

import contextlib
import io
import logging
import types
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kondense.files import ArtifactError

FIXED = "it computes for a fixed number of images: use x.shape[0] for len(x) and int(x.shape[0]), and no loop over them"


def trace_program(module: nn.Module, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    """Return ``module`` as a program of operators for any number of images.

    Args:
        module: in evaluation mode and on the CPU.
        shape: of one image, (C, H, W).

    Raises:
        ArtifactError: the network cannot be traced; the text names the module and the cause.
    """
    try:
        return _traced(module, shape, strict=False)
    except Exception as error:  # from the network's code or torch.export
        fixed = is_fixed_batch(error)
        if fixed:
            # Dynamo reads the code instead of running it, so that len() and int() need not return plain numbers
            with contextlib.suppress(Exception), followed_placeholders():
                return _traced(module, shape, strict=True)
        place = running_module(error, module) or type(module).__name__
        why = FIXED if fixed else cause(error)
        raise ArtifactError(f"the network must be a static graph of operators, but {place} is not: {why}") from error


def _traced(module: nn.Module, shape: tuple[int, ...], *, strict: bool) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    # redirected: it prints the partial graph
    with quiet(), layer_by_layer(), PlainDistances(), contextlib.redirect_stderr(io.StringIO()):
        program = torch.export.export(module, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},), strict=strict)
        return with_bounds_of_one_type(program)


@contextlib.contextmanager
def followed_placeholders() -> Iterator[None]:
    """Let Dynamo follow the function that stands for ONNX operators of one output; it skips all of torch.onnx."""
    before = torch.onnx.ops.symbolic
    torch.onnx.ops.symbolic = torch._dynamo.dont_skip_tracing(before)
    try:
        yield
    finally:
        torch.onnx.ops.symbolic = before


def is_fixed_batch(error: BaseException) -> bool:
    """Return whether torch.export says by ``error`` that the number of images is a constant in the code."""
    kind = torch._dynamo.exc.UserErrorType.CONSTRAINT_VIOLATION
    return isinstance(error, torch._dynamo.exc.UserError) and error.error_type is kind


class PlainDistances(TorchFunctionMode):
    """Computes ``torch.cdist`` by operators that ONNX has, in one way for any number of images; torch has two ways."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch."""
        return (_distances if function is torch.cdist else function)(*args, **(kwargs or {}))


def _distances(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "") -> Tensor:
    return torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), ord=p, dim=-1)


CLAMPS = (torch.ops.aten.clamp.default, torch.ops.aten.clamp_.default)


def with_bounds_of_one_type(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return ``program``, in which ``clamp(x, 0, 1.0)`` has become ``clamp(x, 0.0, 1.0)`` where x is of floats.

    torch.onnx (2.14) promotes the whole number to a tensor and then finds no such operator.
    """
    for node in program.graph.nodes:
        if node.target in CLAMPS and node.args[0].meta["val"].is_floating_point():
            node.args = tuple(float(each) if type(each) is int else each for each in node.args)
            node.kwargs = {key: float(each) if type(each) is int else each for key, each in node.kwargs.items()}
    program.graph_module.recompile()
    return program


def running_module(error: BaseException, module: nn.Module) -> str:
    """Return name and type of the submodule whose forward raised ``error``, or an empty string."""
    names = {id(submodule): name for name, submodule in module.named_modules()}
    place = ""
    for link in causes(error):
        for frame in frames(link.__traceback__):
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in names:
                place = describe(names[id(owner)], type(owner).__name__)
    return place


def translated_module(error: BaseException) -> str:
    """Return name and type of the module whose translated operator raised ``error``, or an empty string."""
    for link in causes(error):
        for frame in reversed(list(frames(link.__traceback__))):
            node = frame.f_locals.get("node")
            stack = node.meta.get("nn_module_stack") if isinstance(node, torch.fx.Node) else None
            if stack:
                path, kind = list(stack.values())[-1]
                return describe(path, str(getattr(kind, "__name__", kind)).rpartition(".")[2])
    return ""


def describe(name: str, kind: str) -> str:
    """Return a module in words: ``layer1.conv (Conv2d)``; the network itself has no name."""
    return f"{name} ({kind})" if name else f"the network itself ({kind})"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and its causes, innermost last."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def cause(error: BaseException) -> str:
    """Return the innermost message of ``error`` in one line."""
    texts = [" ".join(str(link).split()) for link in causes(error)]
    return next((text for text in reversed(texts) if text), type(error).__name__)[:300]


def frames(traceback: types.TracebackType | None) -> Iterator[types.FrameType]:
    """Yield the frames of ``traceback``, innermost last."""
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


@contextlib.contextmanager
def layer_by_layer() -> Iterator[None]:
    """Let torch compute transformers layer by layer; ONNX has no operator for the fused form."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's progress and warnings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
