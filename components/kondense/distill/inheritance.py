"""A narrow student that starts with the most important channels of its wide teacher.

torch-pruning's dependency graph gives the channels that must be removed together, such as those of convolutions whose
outputs a shortcut adds. A copy of the teacher is pruned to the student's channel counts, and its weights are copied.
"""

import copy

import torch
from torch import Tensor, nn
from torch_pruning.dependency import Dependency, DependencyGraph
from torch_pruning.dependency import Group as Dependencies

from kondense.errors import InputError


def is_narrower(student: nn.Module, teacher: nn.Module) -> bool:
    """Return whether the student is the teacher with fewer channels: the same tensors, some smaller and none larger."""
    narrow, wide = student.state_dict(), teacher.state_dict()
    if narrow.keys() != wide.keys() or any(narrow[name].ndim != wide[name].ndim for name in narrow):
        return False
    pairs = [
        (small, large) for name in narrow for small, large in zip(narrow[name].shape, wide[name].shape, strict=True)
    ]
    return all(small <= large for small, large in pairs) and any(small < large for small, large in pairs)


@torch.no_grad()
def inherit(student: nn.Module, teacher: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Copy the weights of the teacher's most important channels to the student, in place.

    Args:
        student: has the teacher's modules, none of them wider.
        teacher: it is not changed.
        image_shape: shape of one image, (C, H, W).

    Raises:
        InputError: the student is not the teacher with fewer channels (the text names the first tensor that differs),
            or the teacher cannot be traced.

    Source: Li et al. 2017, section 3.1: the importance of a filter is the sum of its absolute weights. Deviation: every
    layer's scores are divided by their mean, and summed over all layers that lose a weight with the channel.
    """
    narrowed = copy.deepcopy(teacher)
    counts = {name: outputs(layer) for name, layer in student.named_modules()}
    graph = _trace(narrowed, image_shape)
    for group in list(graph.get_all_groups()):
        name, layer = group[0].dep.target._name, group[0].dep.layer
        lost = outputs(layer) - counts.get(name, 0)
        if lost > 0 and counts.get(name):
            lowest = scores(group).argsort(stable=True)[:lost]
            handler = graph.get_pruner_of_module(layer).prune_out_channels
            graph.get_pruning_group(layer, handler, sorted(lowest.tolist())).prune()
    state = narrowed.state_dict()
    for name, tensor in student.state_dict().items():
        shape = list(state[name].shape) if name in state else None
        if shape != list(tensor.shape):
            raise InputError(
                f"start=teacher needs a student that is the teacher with fewer channels, but {name!r} is"
                f" {list(tensor.shape)} and the teacher has {shape}; use start=random."
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
            size = slices.detach().flatten(1).abs().sum(1)[item.idxs]
            total.index_add_(0, torch.tensor(item.root_idxs), size / size.mean().clamp_min(1e-12))
    return total


def outputs(layer: nn.Module) -> int:
    """Return the number of a layer's output channels or features, 0 for layers without weights."""
    return int(getattr(layer, "out_channels", 0) or getattr(layer, "out_features", 0))


def _trace(module: nn.Module, image_shape: tuple[int, int, int]) -> DependencyGraph:
    module.eval().requires_grad_(True)  # torch-pruning follows the gradient's graph
    try:
        with torch.enable_grad():
            return DependencyGraph().build_dependency(module, torch.zeros(1, *image_shape), verbose=False)
    except (RuntimeError, AttributeError, LookupError, TypeError, ValueError) as error:  # what its tracing raises
        raise InputError(
            f"start=teacher needs a teacher that can be traced, but: {error}; use start=random."
        ) from error


def _shrinks_outputs(dependency: Dependency) -> bool:
    return dependency.handler.__name__ == "prune_out_channels"
