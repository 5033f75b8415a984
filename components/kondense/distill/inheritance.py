"""A narrow student that starts from its wide teacher: of every layer it takes over the channels that weigh most.

The dependency graph of torch-pruning says which channels only leave together, such as those of all convolutions that a
shortcut adds up; a copy of the teacher is cut to the student's channel counts and its weights are handed over.
"""

import copy

import torch
from torch import Tensor, nn
from torch_pruning.dependency import Dependency, DependencyGraph
from torch_pruning.dependency import Group as Dependencies

from kondense.errors import InputError


def is_narrower(student: nn.Module, teacher: nn.Module) -> bool:
    """Tell whether the student is the teacher at fewer channels: the same tensors, some smaller and none larger."""
    mine, theirs = student.state_dict(), teacher.state_dict()
    if mine.keys() != theirs.keys() or any(mine[name].ndim != theirs[name].ndim for name in mine):
        return False
    pairs = [(small, large) for name in mine for small, large in zip(mine[name].shape, theirs[name].shape, strict=True)]
    return all(small <= large for small, large in pairs) and any(small < large for small, large in pairs)


@torch.no_grad()
def inherit(student: nn.Module, teacher: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Give the student the weights of the teacher's most important channels, in place.

    Args:
        student: has the teacher's modules, none of them wider.
        teacher: is left as it is.
        image_shape: shape of one image, (C, H, W).

    Raises:
        ValueError: the student is not the teacher at fewer channels (the text names the first tensor that says so), or
            the teacher cannot be traced.

    Source: Li et al. 2017, section 3.1: the importance of a filter is the sum of its absolute weights. Deviation: every
    layer's scores are divided by their mean, and summed over all layers that lose a weight with the channel.
    """
    narrowed = copy.deepcopy(teacher)
    wanted = {name: outputs(layer) for name, layer in student.named_modules()}
    graph = _trace(narrowed, image_shape)
    for group in list(graph.get_all_groups()):
        name, layer = group[0].dep.target._name, group[0].dep.layer
        lost = outputs(layer) - wanted.get(name, 0)
        if lost > 0 and wanted.get(name):
            lowest = scores(group).argsort(stable=True)[:lost]
            handler = graph.get_pruner_of_module(layer).prune_out_channels
            graph.get_pruning_group(layer, handler, sorted(lowest.tolist())).prune()
    state = narrowed.state_dict()
    for name, tensor in student.state_dict().items():
        found = list(state[name].shape) if name in state else "nothing"
        if found != list(tensor.shape):
            raise InputError(
                f"a student must be its teacher at fewer channels to start from it, but {name!r} is"
                f" {list(tensor.shape)} and the teacher gives {found}; start=random needs no such thing."
            )
    student.load_state_dict(state)


def scores(group: Dependencies) -> Tensor:
    """Return the importance of each channel of a group, [channels]."""
    total = torch.zeros(len(group[0].idxs))
    for item in group:
        layer = item.dep.layer
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # [outputs, inputs, ...] or, where the channel is an input, [inputs, outputs, ...]
            slices = layer.weight if _shrinks_outputs(item.dep) else layer.weight.transpose(0, 1)
            found = slices.detach().flatten(1).abs().sum(1)[item.idxs]
            total.index_add_(0, torch.tensor(item.root_idxs), found / found.mean().clamp_min(1e-12))
    return total


def outputs(layer: nn.Module) -> int:
    """Return how many channels or features a layer gives, 0 for those that have no number of their own."""
    return int(getattr(layer, "out_channels", 0) or getattr(layer, "out_features", 0))


def _trace(module: nn.Module, image_shape: tuple[int, int, int]) -> DependencyGraph:
    module.eval().requires_grad_(True)  # torch-pruning follows the gradient's graph
    try:
        with torch.enable_grad():
            return DependencyGraph().build_dependency(module, torch.zeros(1, *image_shape), verbose=False)
    except (RuntimeError, AttributeError, LookupError, TypeError, ValueError) as error:  # what its tracing raises
        raise InputError(
            f"a teacher must be traceable for its student to start from it, but: {error}; start=random needs no trace."
        ) from error


def _shrinks_outputs(dependency: Dependency) -> bool:
    return dependency.handler.__name__ == "prune_out_channels"
