"""Which layer of the student imitates which of the teacher.

Shapes: C channels, H height, W width, F features.
"""

import dataclasses
from collections.abc import Mapping

from torch import nn

from kondense.distill.feature_hooks import Layer, list_layers
from kondense.distill.hint_layers import parse_hint_layers
from kondense.errors import InputError


@dataclasses.dataclass(frozen=True)
class Pair:
    """A layer of the teacher and the layer of the student that imitates it; both maps, or both features."""

    teacher: Layer
    student: Layer


def pair_by_maps(
    teacher: nn.Module, student: nn.Module, image_shape: tuple[int, int, int], text: str
) -> tuple[Pair, ...]:
    """Return the pairs that ``hint_layers`` names or, when it is empty, one for every size of the student's maps.

    A network's representative of a size is the last layer with it. Paired are the representatives of equal size;
    where the teacher has none, the one at the nearest depth. Networks without maps are paired by their features.

    Raises:
        ValueError: a named layer does not exist, or a pair does not fit; the text lists what is there.
    """
    theirs, mine = list_layers(teacher, image_shape), list_layers(student, image_shape)
    if text:
        return named_pairs(theirs, mine, text)
    spatial = any(layer.is_map for layer in theirs.values()) and any(layer.is_map for layer in mine.values())
    choices = _representatives(theirs, spatial=spatial)
    if not choices:
        raise InputError("the teacher must have inner layers to imitate, but it has none.")
    return tuple(Pair(_nearest(layer, choices), layer) for layer in _representatives(mine, spatial=spatial))


def pair_last(teacher: nn.Module, student: nn.Module, image_shape: tuple[int, int, int], text: str) -> tuple[Pair, ...]:
    """Return the pairs that ``hint_layers`` names or, when it is empty, the layers that feed the classifiers.

    Raises:
        ValueError: a named layer does not exist, or a pair does not fit; the text lists what is there.
    """
    theirs, mine = list_layers(teacher, image_shape), list_layers(student, image_shape)
    if text:
        return named_pairs(theirs, mine, text)
    for role, layers in (("teacher", theirs), ("student", mine)):
        if not layers:
            raise InputError(f"the {role} must have inner layers to imitate, but it has none.")
    return (Pair(list(theirs.values())[-1], list(mine.values())[-1]),)


def named_pairs(theirs: Mapping[str, Layer], mine: Mapping[str, Layer], text: str) -> tuple[Pair, ...]:
    """Return the pairs of the layers that ``text`` names.

    Raises:
        ValueError: a name is none of a network's layers (they are listed), or a map is paired with features.
    """
    pairs = []
    for teacher_name, student_name in parse_hint_layers(text):
        for role, name, layers in (("teacher", teacher_name, theirs), ("student", student_name, mine)):
            if name not in layers:
                raise InputError(
                    f"hint_layers must name layers of the {role}, which are {', '.join(layers)}; but got {name!r}."
                )
        pair = Pair(theirs[teacher_name], mine[student_name])
        if len(pair.teacher.shape) != len(pair.student.shape):
            raise InputError(
                f"hint_layers must pair maps [C, H, W] or features [F], but {teacher_name!r} is"
                f" {list(pair.teacher.shape)} and {student_name!r} is {list(pair.student.shape)}."
            )
        pairs.append(pair)
    return tuple(pairs)


def _representatives(layers: Mapping[str, Layer], *, spatial: bool) -> list[Layer]:
    last: dict[tuple[int, ...], Layer] = {}
    for layer in layers.values():
        if layer.is_map if spatial else len(layer.shape) == 1:
            key = layer.shape[1:] if spatial else layer.shape
            last.pop(key, None)  # the order is that of the last layer of each size
            last[key] = layer
    return list(last.values())


def _nearest(layer: Layer, choices: list[Layer]) -> Layer:
    same = [choice for choice in choices if len(layer.shape) == 3 and choice.shape[1:] == layer.shape[1:]]
    return min(same or choices, key=lambda choice: abs(choice.depth - layer.depth))
