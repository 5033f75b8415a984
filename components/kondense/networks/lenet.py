"""LeNets. Images [N, C, H, W] -> logits [N, classes]."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from kondense.errors import InputError


def scaled(channels: int, width: float) -> int:
    """Return ``channels`` times ``width``, rounded to a multiple of 8 (odd counts cost time) but at least 1.

    A width of 1 changes nothing, so that the published networks keep their published sizes.
    """
    if width == 1.0:
        return channels
    count = channels * width
    return max(8, round(count / 8) * 8) if count >= 4 else max(1, round(count))


def sides(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width of images; a number means squares."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height, width


def checked_sides(name: str, image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width of images that two convolutions of 5x5 with pooling leave a pixel of."""
    height, width = sides(image_size)
    if min(height, width) < 16:
        raise InputError(f"{name} needs images of at least 16 pixels, but got {min(height, width)}.")
    return height, width


def lenet5(classes: int, channels: int, image_size: int | Sequence[int], width: float = 1.0) -> nn.Sequential:
    """Build LeNet-5 as in Caffe: 20-50-500, ReLU, max pooling; 431,080 parameters at 1x28x28 and 10 classes."""
    first, second, third = scaled(20, width), scaled(50, width), scaled(500, width)
    pixels = math.prod(((side - 4) // 2 - 4) // 2 for side in checked_sides("lenet5", image_size))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, first, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(first, second, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(second * pixels, third),
            relu3=nn.ReLU(),
            fc2=nn.Linear(third, classes),
        )
    )


def lenet_cifar(classes: int, channels: int, image_size: int | Sequence[int], width: float = 1.0) -> nn.Sequential:
    """Build the LeNet-like CIFAR-10 network of the article that Kondense stems from: 6-16-120-84."""
    first, second = scaled(6, width), scaled(16, width)
    hidden1, hidden2 = scaled(120, width), scaled(84, width)
    pixels = math.prod(((side - 4) // 2 - 4) // 2 for side in checked_sides("lenet_cifar", image_size))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, first, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(first, second, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(second * pixels, hidden1),
            relu3=nn.ReLU(),
            fc2=nn.Linear(hidden1, hidden2),
            relu4=nn.ReLU(),
            fc3=nn.Linear(hidden2, classes),
        )
    )


def lenet300(classes: int, channels: int, image_size: int | Sequence[int], width: float = 1.0) -> nn.Sequential:
    """Build LeNet-300-100, fully connected; 266,610 parameters at 1x28x28 and 10 classes."""
    first, second = scaled(300, width), scaled(100, width)
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(math.prod((channels, *sides(image_size))), first),
            relu1=nn.ReLU(),
            fc2=nn.Linear(first, second),
            relu2=nn.ReLU(),
            fc3=nn.Linear(second, classes),
        )
    )
