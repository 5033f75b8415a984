"""Capture a network as a ``torch.export`` program, and name the module at which that, or a translation, stops.

Images are [N, C, H, W]; N is free.
"""

import contextlib
import io
import logging
import types
import warnings
from collections.abc import Iterator

import torch
from torch import nn

from kondense.files import ArtifactError


def capture(module: nn.Module, shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """Return ``module`` as a program of operators, for any number of images.

    Args:
        module: in evaluation mode and on the CPU.
        shape: of one image, (C, H, W).

    Raises:
        ArtifactError: the network cannot be captured; the text names the module and the cause.
    """
    batch = torch.export.Dim("batch")
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # it prints the graph as far as it came
            return torch.export.export(module, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},), strict=False)
    except Exception as error:  # whatever the network's own code raises, and all that torch.export does
        place = running_module(error, module) or type(module).__name__
        raise ArtifactError(
            f"the network must be a fixed graph of operators, but {place} is not: {cause(error)}"
        ) from error


def running_module(error: BaseException, module: nn.Module) -> str:
    """Return name and type of the submodule whose forward was running when ``error`` was raised; "" if none was."""
    names = {id(each): name for name, each in module.named_modules()}
    found = ""
    for each in causes(error):
        for frame in frames(each.__traceback__):
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in names:
                found = describe(names[id(owner)], type(owner).__name__)
    return found


def translated_module(error: BaseException) -> str:
    """Return name and type of the module whose operator was being translated when ``error`` was raised; "" if none."""
    for each in causes(error):
        for frame in reversed(list(frames(each.__traceback__))):
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
    """Yield ``error`` and what caused it, innermost last."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def cause(error: BaseException) -> str:
    """Return the innermost message of ``error`` in one line."""
    texts = [" ".join(str(each).split()) for each in causes(error)]
    return next((text for text in reversed(texts) if text), type(error).__name__)[:300]


def frames(traceback: types.TracebackType | None) -> Iterator[types.FrameType]:
    """Yield the frames of ``traceback``, innermost last."""
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's progress and its notes to developers off the screen."""
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
