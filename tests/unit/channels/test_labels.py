"""Labels of activations: reshaped as torch does it, without memory along the axes that they do not depend on."""

import itertools

import pytest
import torch
from kondense.channels.labels import axis_of, reshaped, spread

SHAPES = [  # before, axes along which labels are equal, after
    ((2, 4, 3, 5, 6), (0, 1, 3), (24, 5, 6)),
    ((24, 5, 6), (1,), (2, 4, 3, 5, 6)),
    ((2, 3, 4), (0, 2), (2, 12)),
    ((2, 12), (0,), (2, 3, 4, 1)),
    ((2, 1, 6), (0, 2), (1, 2, 6, 1)),
    ((6, 4), (0,), (4, 6)),
    ((4, 6), (1,), (24,)),
    ((1, 1), (), (1,)),
    ((0, 3), (1,), (3, 0)),
]


@pytest.mark.parametrize(("before", "equal", "after"), SHAPES)
def test_labels_are_reshaped_as_torch_does_it(before, equal, after):
    small = [1 if axis in equal else size for axis, size in enumerate(before)]
    labels = torch.randint(1, 99, small, generator=torch.Generator().manual_seed(0)).expand(before)
    assert torch.equal(reshaped(labels, after), labels.reshape(after))


def test_axes_of_equal_labels_take_no_memory():
    labels = torch.arange(3 * 6).view(1, 1, 3, 1, 6).expand(2, 4, 3, 5, 6)
    assert reshaped(labels, (24, 5, 6)).stride()[1] == 0
    assert reshaped(labels, (8, 3, 30)).stride()[0] == 0


@pytest.mark.parametrize("shape", list(itertools.permutations((2, 8, 5))))
def test_the_axis_that_labels_depend_on_stays_noted(shape):
    axis = shape.index(8)
    labels = spread(torch.arange(1, 9), axis, shape)
    found = reshaped(labels, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    assert axis_of(found)[0] == axis and torch.equal(found.squeeze(axis + 1), labels)
    assert axis_of(reshaped(labels, (80,))) is None
    assert torch.equal(reshaped(labels, (80,)), labels.reshape(80))
