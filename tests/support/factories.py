"""Factories outside the package, for tests of ``package.module:factory``."""

from torch import nn

CALLED = []


class Linear(nn.Module):
    def __init__(self, classes, channels, image_size):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))

    def forward(self, images):
        return self.layers(images)


def annotated(classes: int, channels: int, image_size: int) -> Linear:
    return Linear(classes, channels, image_size)


def bare(**arguments):
    CALLED.append(arguments)


def not_a_module(**arguments) -> int:
    CALLED.append(arguments)
    return 1


def of_several_outputs(classes: int, channels: int, image_size: int) -> nn.Module:
    class Several(Linear):
        def forward(self, images):
            return [super().forward(images)]

    return Several(classes, channels, image_size)
