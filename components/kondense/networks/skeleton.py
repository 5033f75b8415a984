"""Networks without memory for their weights, to compare an artifact's description with its weights before any is used.

A description of some hundred bytes can ask for any number of weights. On torch's meta device a network has shapes only.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kondense.errors import InputError
from kondense.networks.allowed import is_imported
from kondense.networks.build import NetworkSpec, build

META = torch.device("meta")
MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
LARGEST = {"classes": 2**20, "channels": 2**10, "image_size": 2**12, "width": 64}  # of networks that are not imported
WHOLE = ("classes", "channels", "image_size")
LEAST_BOUND = 2**26  # weights that a base network may always have,
PER_STORED = 64  # and times those of the artifact, which pruning has made fewer


def check_arguments(spec: NetworkSpec) -> None:
    """Raise InputError unless an artifact's arguments for a built-in network or one of a library are within bounds.

    What an imported factory takes is not known here.
    """
    if is_imported(spec.name):
        return
    for name, value in spec.arguments.items():
        values = value if name == "image_size" and isinstance(value, list) else [value]
        if name in LARGEST and not (1 <= len(values) <= 2 and all(_is_within(each, name) for each in values)):
            kind = "a whole number" if name in WHOLE else "a number"
            raise InputError(
                f"{name} of network {spec.name!r} must be {kind} above 0 and at most {LARGEST[name]}, but got"
                f" {ascii(value)[:40]}."
            )


class _WeightsOnMeta(TorchFunctionMode):
    """Let the functions that layers make their weights with use the meta device; all others compute as ever."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        return func(*args, **({"device": META} | given if func in MAKERS and not given.get("device") else given))


def skeleton(spec: NetworkSpec) -> nn.Module | None:
    """Return the network with its weights on the meta device; None if its code cannot be run so.

    Raises:
        InputError: as ``build``, for networks that are not imported.
    """
    for mode in (META, _WeightsOnMeta()):  # torchvision's RegNet, for one, computes its widths with tensors
        try:
            with mode:
                return build(spec)
        except InputError as error:
            refused = error
    if is_imported(spec.name) or isinstance(refused.__cause__, NotImplementedError | RuntimeError):
        return None
    raise refused


def is_whole(module: nn.Module) -> bool:
    """Return whether the tensors of a skeleton are all in its state dict, so that loading weights completes it."""
    stored = set(map(id, module.state_dict(keep_vars=True).values()))
    return all(id(tensor) in stored for tensor in _all(module) if tensor.is_meta)


def materialised(module: nn.Module) -> nn.Module:
    """Give a whole skeleton memory on the CPU for its tensors, uninitialised, in place, and return it."""
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.is_meta:
                    tensors[name] = made.setdefault(id(tensor), _with_memory(tensor))  # type: ignore[assignment]
    return module


def check_shapes(module: nn.Module, shapes: Mapping[str, Sequence[int]], tied: Mapping[str, str]) -> None:
    """Raise InputError unless the tensors of ``module`` have ``shapes`` by state-dict name; ``tied`` ones have none."""
    wanted = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    for name, shape in wanted.items():
        if name not in shapes and tied.get(name) not in shapes:
            raise InputError(f"the weights must hold {name!r}, but do not.")
        if name in shapes and list(shapes[name]) != shape:
            stored = list(shapes[name])
            raise InputError(f"{name!r} must be {shape} as the network has it, but the weights hold {stored}.")
    for name in shapes:
        if name not in wanted:
            raise InputError(f"the weights must be those of the network, but hold {name!r} too.")


def check_size(module: nn.Module, stored: int) -> None:
    """Raise InputError if a base network is far larger than its artifact, of ``stored`` weights."""
    bound = max(LEAST_BOUND, PER_STORED * stored)
    size = sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in _all(module)}.values())
    if size > bound:
        raise InputError(f"the base network of {stored} stored weights must have at most {bound}, but has {size}.")


def _is_within(value: Any, name: str) -> bool:
    kinds = (int,) if name in WHOLE else (int, float)
    return type(value) in kinds and math.isfinite(value) and 0 < value <= LARGEST[name]


def _with_memory(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="cpu")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _all(module: nn.Module) -> Iterator[Tensor]:
    for part in module.modules():
        yield from _tensors(vars(part))


def _tensors(value: Any, levels: int = 4) -> Iterator[Tensor]:
    """Yield the tensors in attributes: values, and what lists, tuples and dictionaries hold."""
    if isinstance(value, Tensor):
        yield value
    elif levels and isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each, levels - 1)
    elif levels and isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each, levels - 1)
