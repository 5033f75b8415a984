"""Networks that move channels and places: views, permutations, slices, writes in place, pools."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo.parts.frames import MIDDLE, WIDTH, Lambda, conv, framed, plain


class FlattenByView(nn.Module):
    """Flattens by ``view``, which a channels-last tensor refuses."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, WIDTH, stride=2))
        self.fc = nn.Linear(WIDTH * (image_size // 4) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.fc(x.view(x.size(0), -1))


class ShapesInTheCode(nn.Module):
    """Has the number of channels and the side of the maps as literals in ``forward``."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.side = image_size // 2
        self.conv = conv(channels, WIDTH, stride=2)
        self.fc = nn.Linear(WIDTH * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).reshape(-1, 16, self.side * self.side)
        return self.fc(F.adaptive_avg_pool1d(x, 4).reshape(-1, 16 * 4))


class AssertInForward(nn.Module):
    """Checks the shape of its input, as timm's patch embeddings do."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.size = image_size
        self.conv = conv(channels, WIDTH, stride=2)
        self.fc = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == self.size, f"images must have {self.size} rows, but got {x.shape[2]}"
        if x.shape[-1] != self.size:
            raise ValueError(f"images must have {self.size} columns, but got {x.shape[-1]}")
        return self.fc(self.conv(x).mean((2, 3)))


class Shuffle(nn.Module):
    """Shuffles the channels of a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv(WIDTH, WIDTH, groups=2)
        self.second = conv(WIDTH, WIDTH, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        n, c, h, w = x.shape
        return self.second(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Maxout(nn.Module):
    """The largest of every two neighbouring channels, and of the halves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(WIDTH, 2 * WIDTH, 3), nn.Conv2d(WIDTH, 2 * WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).unflatten(1, (-1, 2)).amax(2)
        x = self.second(x).unflatten(1, (2, -1))
        return x.max(1).values


class FoldedPatches(nn.Module):
    """Patches that are cut out, mapped and added up again."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        patches = F.unfold(self.mix(x), 2, stride=2)
        return F.fold(patches.relu(), size, 2, stride=2)


class Rearrange(nn.Module):
    """Folds 2x2 places into channels and back by reshape and permute, as einops does."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = conv(4 * WIDTH, 4 * WIDTH, 1)
        self.last = conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)
        x = self.deep(x)
        x = x.reshape(n, 2, 2, -1, h // 2, w // 2).permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)
        return self.last(x)


class PaddedShortcut(nn.Module):
    """Pads the channels of a strided shortcut with zeros, as the first ResNets for CIFAR do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(WIDTH, 24, stride=2), conv(24, 24)[:2])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))


class TemporalShift(nn.Module):
    """Shifts a quarter of the channels to each side and leaves the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        quarter = x.shape[1] // 4
        out = torch.zeros_like(x)
        out[:, :quarter, :, :-1] = x[:, :quarter, :, 1:]
        out[:, quarter : 2 * quarter, :, 1:] = x[:, quarter : 2 * quarter, :, :-1]
        out[:, 2 * quarter :] = x[:, 2 * quarter :]
        return self.second(out)


class WritesInPlace(nn.Module):
    """Scales, clamps and adds in place, to all of a map and to a slice of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x.mul_(2).clamp_(-3, 3)
        x[:, :, 0] += 1.0
        return self.second(x) + x


class ControlFlowOnShape(nn.Module):
    """Halves the map until it is small, and looks at its number of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        while x.shape[-1] > 4:
            x = F.max_pool2d(x, 2)
        if x.dim() == 3 or x.size(1) < 2:
            return x
        return self.second(x)


class Unpooling(nn.Module):
    """Puts pooled values back to where they were the largest, as SegNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)
        self.pool, self.back = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x, places = self.pool(self.first(x))
        return self.second(self.back(F.relu(x), places))


class Windows(nn.Module):
    """Rolls the map, cuts it into windows, mixes the places of each and puts it together again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix = conv(WIDTH, WIDTH), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(self.first(x), (1, 1), (2, 3))
        n, c, h, w = x.shape
        x = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 16)
        x = self.mix(x).view(n, h // 4, w // 4, c, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)
        return torch.roll(x, (-1, -1), (2, 3))


class PixelsOnly(nn.Module):
    """Fully connected layers with norms on the flattened pixels, and a head of several layers."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * image_size**2, 32), nn.BatchNorm1d(32), nn.GELU(), nn.Dropout(0.2)
        )
        self.head = nn.Sequential(nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, classes), nn.LogSoftmax(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))


class LargestPlaces(nn.Module):
    """Classifies by the largest values of each map, and where they are above a threshold."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        values = self.conv(x).flatten(2).topk(4, dim=2).values
        return self.head(torch.where(values > 0.1, values, values.new_zeros(())).mean(2))


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "view_flatten": FlattenByView,
    "shapes_in_code": ShapesInTheCode,
    "asserts": AssertInForward,
    "channel_shuffle": framed(Shuffle),
    "module_channel_shuffle": plain(MIDDLE, lambda: nn.ChannelShuffle(4), functools.partial(MIDDLE, groups=4)),
    "maxout": framed(Maxout),
    "fold": plain(FoldedPatches, MIDDLE),
    "pixel_shuffle": plain(lambda: nn.Conv2d(WIDTH, 4 * WIDTH, 1), lambda: nn.PixelShuffle(2), MIDDLE),
    "adaptive_pooling": plain(MIDDLE, lambda: nn.AdaptiveAvgPool2d(3), MIDDLE),
    "lambda_layer": plain(MIDDLE, lambda: Lambda(torch.abs), MIDDLE),
    "rearrange": framed(Rearrange),
    "padded_shortcut": framed(PaddedShortcut, 24),
    "temporal_shift": framed(TemporalShift),
    "in_place": framed(WritesInPlace),
    "control_flow_on_shape": framed(ControlFlowOnShape),
    "unpooling": framed(Unpooling),
    "windows": framed(Windows),
    "pixels_only": PixelsOnly,
    "largest_places": LargestPlaces,
    "pixel_unshuffle": plain(lambda: nn.PixelUnshuffle(2), lambda: conv(4 * WIDTH, WIDTH, 1)),
}
