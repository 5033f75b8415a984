"""Activation checkpointing: blocks keep only their inputs, and compute the rest again for the backward pass.

Results stay the same to the bit: a block is computed again with the random numbers and the buffers that it first had,
and what it writes into buffers the second time, such as the running statistics of batch norms, is dropped.

Source: Chen et al. 2016, "Training deep nets with sublinear memory cost", section 4, by ``torch.utils.checkpoint``.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kondense.logging import LOG

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Again = Callable[[], AbstractContextManager[Any]]


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the repeated parts of a network, such as its residual blocks or the layers of a transformer.

    They are what containers hold: parts of several layers, but not stages that hold blocks themselves.
    """
    found: list[nn.Module] = []
    for child in module.children():
        composed = len(list(child.modules())) > 2
        nested = isinstance(child, CONTAINERS) and any(len(list(part.modules())) > 2 for part in child.children())
        if isinstance(module, CONTAINERS) and composed and not nested and not _holds_blocks(child):
            found.append(child)
        else:
            found += blocks(child)
    return found


def told_blocks(module: nn.Module) -> list[nn.Module]:
    """Return ``blocks``; a network that has none is told."""
    found = blocks(module)
    if not found:
        LOG.warning("recompute_activations saves nothing: the network holds no blocks in a Sequential or ModuleList")
    return found


def _holds_blocks(module: nn.Module) -> bool:
    """Return whether a container within ``module`` holds two or more parts that are composed, but no containers."""
    return any(
        isinstance(part, CONTAINERS)
        and sum(len(list(child.modules())) > 2 and not isinstance(child, CONTAINERS) for child in part.children()) > 1
        for part in module.modules()
    )


@contextlib.contextmanager
def recomputed(parts: Sequence[nn.Module], again: Again = contextlib.nullcontext) -> Iterator[None]:
    """Let the modules ``parts`` keep nothing but their inputs for the backward pass of what runs in the block.

    Args:
        parts: see ``blocks``; each may be called several times.
        again: makes the context in which parts are computed again; the backward pass may lie outside of the block.
    """
    given = {part: part.__dict__.get("forward") for part in parts}
    for part in given:
        part.forward = functools.partial(_call, part, part.forward, again)
    try:
        yield
    finally:
        for part, forward in given.items():
            if forward is None:
                del part.forward
            else:
                part.forward = forward


def _call(part: nn.Module, forward: Callable[..., Any], again: Again, *args: Any, **kwargs: Any) -> Any:
    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        before = _buffers(part)
        return contextlib.nullcontext(), _recomputing(before, again)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


Places = list[tuple[nn.Module, str, Tensor]]


def _buffers(part: nn.Module) -> Places:
    """Return copies of the buffers of a module and its submodules, with their places."""
    return [
        (module, name, buffer.clone())
        for module in part.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]


@contextlib.contextmanager
def _recomputing(before: Places, again: Again) -> Iterator[None]:
    """Use the buffers ``before`` in the block, then those from outside of it."""
    current = [(module, name, module._buffers[name]) for module, name, _ in before]
    for module, name, earlier in before:
        module._buffers[name] = earlier
    try:
        with again():
            yield
    finally:
        for module, name, buffer in current:
            module._buffers[name] = buffer
