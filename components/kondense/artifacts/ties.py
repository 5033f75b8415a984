"""Tied tensors: one parameter that a network holds under several names, and modules that stand under several names."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from torch import Tensor, nn

from kondense.errors import InputError


def tied_names(module: nn.Module) -> dict[str, str]:
    """Return the further state-dict names of tensors that stand under several, each with the tensor's first name."""
    first: dict[int, str] = {}
    tied = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if first.setdefault(id(tensor), name) != name:
            tied[name] = first[id(tensor)]
    return tied


def tie(module: nn.Module, tied: Mapping[str, str]) -> None:
    """Make one tensor of those that ``tied`` (see ``tied_names``) names, in place; their values must be equal.

    Raises:
        InputError: a name is unknown, or the tensors have different shapes.
    """
    tensors = module.state_dict(keep_vars=True)
    for name, first in tied.items():
        if name not in tensors or first not in tensors:
            raise InputError(f"tied tensors must be part of the network, but {name!r} and {first!r} are not.")
        if tensors[name] is tensors[first]:
            continue
        if tensors[name].shape != tensors[first].shape:
            shapes = f"{list(tensors[name].shape)} and {list(tensors[first].shape)}"
            raise InputError(f"tied tensors must have one shape, but {name!r} and {first!r} have {shapes}.")
        owner, _, leaf = name.rpartition(".")
        part = module.get_submodule(owner)
        (part._parameters if leaf in part._parameters else part._buffers)[leaf] = tensors[first]


def untie(module: nn.Module, names: Iterable[str]) -> None:
    """Give each of the state-dict ``names`` a tensor of its own, in place."""
    for name in names:
        owner, _, leaf = name.rpartition(".")
        part = module.get_submodule(owner)
        if leaf in part._parameters:
            part._parameters[leaf] = nn.Parameter(part.get_parameter(leaf).detach().clone())
        else:
            part._buffers[leaf] = part.get_buffer(leaf).clone()


def owners(module: nn.Module, kind: str = "weight") -> dict[str, str]:
    """Return the first layer with the same ``kind`` of tensor, by name of each module that has one."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(tensor), name)
        for name, part in module.named_modules()
        if isinstance(tensor := part._parameters.get(kind), Tensor)
    }


def check_ties(module: nn.Module) -> None:
    """Raise InputError if parameters share their memory without being the same one, such as a transposed weight.

    Copies and files hold values, so that the tie would be lost without a word.
    """
    for name, other in _overlapping(module):
        raise InputError(
            f"tied weights must be one nn.Parameter, but {name!r} and {other!r} share their memory as different ones;"
            f" give one of them weights of its own, or use {name!r} in the forward of both, such as"
            " F.linear(x, self.first.weight.flatten(1))."
        )


def _overlapping(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of different parameters that share memory."""
    places = []
    for name, tensor in module.named_parameters():
        if type(tensor.data) is Tensor and tensor.device.type != "meta" and tensor.numel():
            start = tensor.data_ptr()
            size = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
            places.append((start, start + size * tensor.element_size(), name))
    for (_, end, name), (start, _, other) in pairwise(sorted(places)):
        if start < end:
            yield name, other


def shared_layers(module: nn.Module) -> set[str]:
    """Return the names of the modules that share a parameter with another module."""
    holders: dict[int, set[str]] = {}
    for name, part in module.named_modules():
        for tensor in part.parameters(recurse=False):
            holders.setdefault(id(tensor), set()).add(name)
    return set().union(*(names for names in holders.values() if len(names) > 1))
