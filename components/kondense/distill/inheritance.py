"""A narrow student that starts with the most important channels of its wide teacher.

A copy of the teacher loses, group by group, the channels that weigh least, down to the student's channel counts or to a
width (see ``kondense.channels.dependencies``).
"""

import copy
import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.channels.dependencies import (
    WEIGHTED,
    ChannelGroup,
    find_dependencies,
    narrowed,
    weighted,
)
from kondense.channels.groups import by_input, by_output
from kondense.channels.surgery import remove
from kondense.errors import InputError

MULTIPLE = 4  # of channels: onnxruntime 1.21 to 1.24 computes other int8 layers wrong on processors with AMX


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
    wanted = {name: outputs(layer) for name, layer in student.named_modules()}
    small = copy.deepcopy(teacher)
    try:  # unproved, since the student's code may hold other numbers than the teacher's
        groups = find_dependencies(small, image_shape, proved=False).groups
    except InputError as error:
        raise InputError(f"start=teacher needs a teacher that can be traced, but {error}; use start=random.") from error
    _narrow(small, groups, image_shape, {name: _count(group, wanted) for name, group in groups.items()})
    state = small.state_dict()
    for name, tensor in student.state_dict().items():
        shape = list(state[name].shape) if name in state else None
        if shape != list(tensor.shape):
            raise InputError(
                f"start=teacher needs a student that is the teacher with fewer channels, but {name!r} is"
                f" {list(tensor.shape)} and the teacher has {shape}; use start=random."
            )
    student.load_state_dict(state)


@torch.no_grad()
def narrow(module: nn.Module, image_shape: tuple[int, int, int], width: float) -> dict[str, str]:
    """Remove the least important channels of a network in place, so that a fraction ``width`` of each group is left.

    Args:
        module: the network.
        image_shape: shape of one image, (C, H, W).
        width: in (0, 1); counts are rounded to multiples of ``MULTIPLE`` outputs, those of attention heads to whole
            heads.

    Returns:
        Why layers keep all of their outputs, by name.

    Raises:
        InputError: no channel can be removed, or the network cannot be traced.
    """
    found = find_dependencies(module, image_shape)
    counts = {}
    for name, group in found.groups.items():
        of_outputs = MULTIPLE // math.gcd(MULTIPLE, group.width)  # a head is many of them
        multiple = math.lcm(of_outputs, group.blocks)
        counts[name] = min(group.channels, max(1, int(width * group.channels / multiple + 0.5)) * multiple)
    if all(counts[name] == group.channels for name, group in found.groups.items()):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.whole.items())
        raise InputError(
            f"width {width} needs a network with channels to remove, but all stay"
            f" ({reasons or f'no layer has more than {MULTIPLE}'}); give a student_network of its own."
        )
    _narrow(module, found.groups, image_shape, counts)
    return found.whole


def _count(group: ChannelGroup, wanted: Mapping[str, int]) -> int:
    """Return the channels of a group that a student has, by the outputs of its layers."""
    root = next(member for member in group.members if member.name == group.name and member.output)
    layer = weighted(root.layer)
    lost = outputs(layer) - wanted.get(group.name, 0)
    if lost <= 0 or not wanted.get(group.name):
        return group.channels
    return max(group.channels - lost // root.entries.shape[1], group.blocks)


def _narrow(
    module: nn.Module,
    groups: Mapping[str, ChannelGroup],
    image_shape: tuple[int, int, int],
    counts: Mapping[str, int],
) -> None:
    """Remove channels group by group, those first that the backward pass reaches first."""
    order = {name: place for place, name in enumerate(_reached(module, image_shape))}
    first = {name: min(order.get(producer, len(order)) for producer in groups[name].producers()) for name in groups}
    for name in sorted(groups, key=lambda name: first[name]):
        group = groups[name]
        if counts[name] < group.channels:
            removed = {name: group.lowest(scores(group), counts[name])}
            remove(module, groups, removed)
            groups = narrowed(groups, removed)


def _reached(module: nn.Module, image_shape: tuple[int, int, int]) -> list[str]:
    """Return the layers in the order in which a walk along the gradients from the outputs reaches them."""
    made: dict[object, str] = {}

    def note(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        made[output.grad_fn] = name

    hooks = [
        layer.register_forward_hook(functools.partial(note, name))
        for name, layer in module.named_modules()
        if isinstance(layer, WEIGHTED)
    ]
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    with torch.enable_grad():
        result = module.eval()(torch.zeros(2, *image_shape))
    for hook in hooks:
        hook.remove()
    for parameter in frozen:
        parameter.requires_grad_(False)
    stack, seen = [getattr(result, "grad_fn", None)], set()
    reached: dict[str, None] = {}
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            if following in made:
                reached[made[following]] = None
            stack.append(following)
    return list(reached)


def scores(group: ChannelGroup) -> Tensor:
    """Return the importance of each channel of a group, [channels]."""
    total = torch.zeros(group.channels)
    for member in group.members:
        if isinstance(member.layer, WEIGHTED):
            layer = weighted(member.layer)
            slices = by_output(layer, layer.weight) if member.output else by_input(layer, layer.weight)
            size = slices.detach().flatten(1).abs().sum(1)[member.entries]
            total += (size / size.mean().clamp_min(1e-12)).sum(1)
    return total


def outputs(layer: nn.Module) -> int:
    """Return the number of a layer's output channels or features, 0 for layers without weights."""
    return int(getattr(layer, "out_channels", 0) or getattr(layer, "out_features", 0))
