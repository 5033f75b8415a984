"""The pairs of a teacher's and a student's layers that a method compares.

Shapes: C channels, H height, W width, F features.
"""

import dataclasses
from collections.abc import Mapping

from torch import nn

from kondense.distill.config import parse_hint_layers
from kondense.distill.feature_hooks import Layer, list_layers
from kondense.errors import InputError


@dataclasses.dataclass(frozen=True)
class Pair:
    """A layer of the teacher and the layer of the student to compare; both maps, or both features."""

    teacher: Layer
    student: Layer


def pair_by_maps(
    teacher: nn.Module, student: nn.Module, image_shape: tuple[int, int, int], text: str
) -> tuple[Pair, ...]:
    """Return the pairs named by ``text`` (``hint_layers``) or, if it is empty, one pair per map size of the student.

    The last layer of a size represents it. Representatives of equal size are paired, or else those of nearest depth.
    Networks without maps are paired by their features.

    Raises:
        InputError: a named layer does not exist, or a pair does not fit; the text lists the layers.
    """
    teacher_layers, student_layers = list_layers(teacher, image_shape), list_layers(student, image_shape)
    if text:
        return named_pairs(teacher_layers, student_layers, text)
    spatial = any(layer.is_map for layer in teacher_layers.values()) and any(
        layer.is_map for layer in student_layers.values()
    )
    choices = _representatives(teacher_layers, spatial=spatial)
    if not choices:
        raise InputError("the teacher must have inner layers to compare, but it has none.")
    return tuple(Pair(_nearest(layer, choices), layer) for layer in _representatives(student_layers, spatial=spatial))


def pair_last(teacher: nn.Module, student: nn.Module, image_shape: tuple[int, int, int], text: str) -> tuple[Pair, ...]:
    """Return the pairs named by ``text`` (``hint_layers``) or, if it is empty, the inputs of the classifiers.

    Raises:
        InputError: a named layer does not exist, or a pair does not fit; the text lists the layers.
    """
    teacher_layers, student_layers = list_layers(teacher, image_shape), list_layers(student, image_shape)
    if text:
        return named_pairs(teacher_layers, student_layers, text)
    for role, layers in (("teacher", teacher_layers), ("student", student_layers)):
        if not layers:
            raise InputError(f"the {role} must have inner layers to compare, but it has none.")
    return (Pair(list(teacher_layers.values())[-1], list(student_layers.values())[-1]),)


def named_pairs(
    teacher_layers: Mapping[str, Layer], student_layers: Mapping[str, Layer], text: str
) -> tuple[Pair, ...]:
    """Return the pairs of the layers named by ``text``.

    Raises:
        InputError: an unknown name (the layers are listed), or a map paired with features.
    """
    pairs = []
    for teacher_name, student_name in parse_hint_layers(text):
        for role, name, layers in (
            ("teacher", teacher_name, teacher_layers),
            ("student", student_name, student_layers),
        ):
            if name not in layers:
                raise InputError(
                    f"hint_layers must name layers of the {role}, which are {', '.join(layers)}; but got {name!r}."
                )
        pair = Pair(teacher_layers[teacher_name], student_layers[student_name])
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
