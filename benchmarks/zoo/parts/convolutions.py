"""Networks with convolutions of every kind: grouped, transposed, of one and three dimensions, lazy, deformable."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from benchmarks.zoo.parts.frames import MIDDLE, WIDTH, conv, framed, plain


class OneDimensional(nn.Module):
    """Convolves the flattened map in one dimension."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = conv(channels, WIDTH, stride=4)
        self.line = nn.Sequential(nn.Conv1d(WIDTH, WIDTH, 3, padding=1), nn.BatchNorm1d(WIDTH), nn.ReLU())
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.line(self.conv(x).flatten(2)).mean(2))


class ThreeDimensional(nn.Module):
    """Convolves the channels as a third dimension."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.cube = nn.Sequential(nn.Conv3d(1, 8, 3, stride=(1, 2, 2), padding=1), nn.BatchNorm3d(8), nn.ReLU())
        self.conv = conv(8 * channels, WIDTH)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.cube(x.unsqueeze(1)).flatten(1, 2)).mean((2, 3)))


class Line(nn.Module):
    """A network of one-dimensional convolutions, strided, grouped and joined, on the rows of the images."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(channels * image_size, 32, 3, padding=1), nn.BatchNorm1d(32), nn.ReLU())
        self.grouped = nn.Sequential(nn.Conv1d(32, 32, 3, stride=2, padding=1, groups=4), nn.ReLU())
        self.pointwise = nn.Conv1d(32, 24, 1)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.first(x.flatten(1, 2)))
        return self.head(self.pool(F.relu(self.pointwise(x))).squeeze(-1))


class Volume(nn.Module):
    """A network of three-dimensional convolutions over channels as depth."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv3d(1, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(), nn.MaxPool3d((1, 2, 2))
        )
        self.second = nn.Sequential(nn.Conv3d(16, 24, (1, 3, 3), padding=(0, 1, 1)), nn.InstanceNorm3d(24), nn.ReLU())
        self.head = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x[:, None])).mean((2, 3, 4)))


def _padding_modes() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(WIDTH, 24, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(24, 24, 3, padding="same", padding_mode="circular"),
        nn.ReflectionPad2d(1),
        nn.Conv2d(24, WIDTH, 3),
        nn.ZeroPad2d((0, 1, 1, 0)),
    )


def _transposed() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(WIDTH, 24, 3, 2, 1, output_padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.ConvTranspose2d(24, 24, 3, padding=1, groups=4),
        nn.ConvTranspose2d(24, 24, 2, 2, groups=24),
        nn.Conv2d(24, WIDTH, 1),
    )


class Blur(nn.Module):
    """Smooths every channel by a fixed kernel in a buffer, and takes edges by another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(WIDTH, 24), conv(48, WIDTH, 1)
        kernel = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (kernel[:, None] * kernel / 16).expand(24, 1, 3, 3).clone())
        self.register_buffer("edges", torch.tensor([[1.0, 0, -1]] * 3)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        smooth = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, stride=2, groups=x.shape[1])
        edges = F.conv2d(x, self.edges.expand(x.shape[1], 1, 3, 3), padding=1, stride=2, groups=x.shape[1])
        return self.last(torch.cat([smooth, edges], 1))


class LargeKernel(nn.Module):
    """Rows, columns and places by depthwise layers of their own, twice as many outputs as inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Conv2d(WIDTH, 2 * WIDTH, (1, 5), padding=(0, 2), groups=WIDTH)
        self.columns = nn.Conv2d(2 * WIDTH, 2 * WIDTH, (5, 1), padding=(2, 0), groups=2 * WIDTH)
        self.project = conv(2 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.silu(self.columns(self.rows(x))))


def lazy(classes: int, channels: int, image_size: int) -> nn.Module:
    network = nn.Sequential(
        nn.LazyConv2d(WIDTH, 3, 2, 1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.LazyConv2d(WIDTH, 3), nn.Flatten()
    )
    network.append(nn.LazyLinear(classes))
    return network


class Deformable(nn.Module):
    """A convolution whose places a second one computes."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets, self.deform = nn.Conv2d(WIDTH, 18, 3, padding=1), DeformConv2d(WIDTH, WIDTH, 3, padding=1)
        self.last = conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.deform(x, self.offsets(x)))


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "grouped": plain(functools.partial(MIDDLE, groups=4), MIDDLE),
    "depthwise": plain(functools.partial(MIDDLE, groups=WIDTH), functools.partial(MIDDLE, kernel=1)),
    "depthwise_multiplier": plain(
        functools.partial(conv, WIDTH, 2 * WIDTH, groups=WIDTH), functools.partial(conv, 2 * WIDTH, WIDTH, 1)
    ),
    "dilated": plain(functools.partial(MIDDLE, dilation=2, padding=2), MIDDLE),
    "transposed": plain(lambda: nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2), MIDDLE),
    "one_dimensional": OneDimensional,
    "three_dimensional": ThreeDimensional,
    "line": Line,
    "volume": Volume,
    "padding_modes": framed(_padding_modes),
    "transposed_groups": framed(_transposed),
    "blur": framed(Blur),
    "large_kernel": framed(LargeKernel),
    "lazy": lazy,
    "deformable": framed(Deformable),
}
