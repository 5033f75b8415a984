"""What the small networks of the zoo are built in: stems, heads and layers.

Every factory takes ``classes``, ``channels`` and ``image_size`` and returns a network of a few thousand weights.
"""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

WIDTH = 16


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, **options: Any) -> nn.Sequential:
    """Return convolution, batch norm and ReLU."""
    padding = options.pop("padding", None)
    padding = kernel // 2 if padding is None else padding
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Framed(nn.Module):
    """A stem, one inner part and a classifier over the mean of each map."""

    def __init__(self, channels: int, classes: int, inner: nn.Module, outputs: int = WIDTH) -> None:
        super().__init__()
        self.stem = conv(channels, WIDTH, stride=2)
        self.inner = inner
        self.head = nn.Linear(outputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.stem(x)).mean((2, 3)))


class Expression(nn.Module):
    """Layers by name, and what is computed with them."""

    def __init__(self, compute: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.compute = compute
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


class Lambda(nn.Module):
    """A layer of a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def framed(make: Callable[[], nn.Module], outputs: int = WIDTH) -> Callable[..., nn.Module]:
    """Return the factory of a network whose inner part ``make`` returns."""

    def factory(classes: int, channels: int, image_size: int) -> nn.Module:
        return Framed(channels, classes, make(), outputs)

    return factory


class Tokens(nn.Module):
    """Embeds patches and hands the tokens [N, T, C] to its inner part."""

    def __init__(self, classes: int, channels: int, inner: nn.Module, **options: Any) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, WIDTH, 4, 4)
        self.inner = inner
        self.head = nn.Linear(WIDTH, classes, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.embed(x).flatten(2).transpose(1, 2)).mean(1))


def tokens(make: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    """Return the factory of a network whose inner part works on tokens."""

    def factory(classes: int, channels: int, image_size: int) -> nn.Module:
        return Tokens(classes, channels, make())

    return factory


def plain(*layers: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    """Return the factory of a network with these layers in the middle."""
    return framed(lambda: nn.Sequential(*(layer() for layer in layers)))


MIDDLE = functools.partial(conv, WIDTH, WIDTH)
