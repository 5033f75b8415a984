"""Networks whose branches are split, joined, added, weighed or left out."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth as StochasticDepthOfTorchvision

from benchmarks.zoo.parts.frames import WIDTH, conv, framed


class SplitAndConcatenate(nn.Module):
    """Works on half of the channels and joins them with the other half, as ShuffleNet V2 does."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = conv(WIDTH // 2, WIDTH // 2)

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.split(WIDTH // 2, dim=1)
        return torch.cat([kept, self.branch(worked)], dim=1)


class Dense(nn.Module):
    """Joins the outputs of all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(WIDTH + 8 * index, 8) for index in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class Residual(nn.Module):
    """A shortcut, with a convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, outputs, stride=stride), conv(outputs, outputs)[:2])
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        out += self.shortcut(x)  # in place
        return F.relu_(out)


class StochasticDepth(nn.Module):
    """Leaves a branch out at random while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.rand(()) < 0.2:
            return x
        return x + self.branch(x)


class Branches(nn.Module):
    """Sums the layers of a ModuleDict."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({"narrow": conv(WIDTH, WIDTH, 1), "wide": conv(WIDTH, WIDTH, 5)})

    def forward(self, x: Tensor) -> Tensor:
        return sum(branch(x) for branch in self.branches.values())


class Inception(nn.Module):
    """Joins branches of different kernels and strides, one with a pool of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one = conv(WIDTH, 8, 1, stride=2)
        self.two = nn.Sequential(conv(WIDTH, 12, 1), conv(12, 8, (1, 3), padding=(0, 1)), conv(8, 8, stride=2))
        self.three = nn.Sequential(nn.AvgPool2d(2), conv(WIDTH, 8, 1))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.last = conv(24 + WIDTH, 24, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.one(x), self.two(x), self.three(x), self.pool(x)], dim=1))


class Res2(nn.Module):
    """Adds to every part of the channels what came out of the part before, as Res2Net does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(WIDTH, 64, 1), conv(64, WIDTH, 1)
        self.parts = nn.ModuleList([conv(16, 16) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.first(x).chunk(4, dim=1)
        joined = [first]
        for layer, part in zip(self.parts, rest, strict=True):
            joined.append(layer(part + joined[-1] if len(joined) > 1 else part))
        return x + self.last(torch.cat(joined, 1))


class CrossStage(nn.Module):
    """Splits by a layer for each part, and joins after a bottleneck, as CSPNet and YOLO do."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.last = conv(WIDTH, 32, 1), conv(48, WIDTH, 1)
        self.inner = nn.Sequential(conv(WIDTH, 8, 1), conv(8, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.wide(x).chunk(2, 1))
        parts.append(parts[-1] + self.inner(parts[-1]))
        return self.last(torch.cat(parts, 1))


class UNet(nn.Module):
    """Goes down and up again, joined by skips; up by a transposed convolution and by interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = conv(WIDTH, 24, stride=2), conv(24, 32, stride=2)
        self.up = nn.ConvTranspose2d(32, 24, 2, 2)
        self.middle, self.last = conv(48, 24), conv(24 + WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        down = self.down(x)
        up = self.middle(torch.cat([self.up(self.deep(down)), down], 1))
        up = F.interpolate(up, size=x.shape[2:], mode="bilinear", align_corners=False)
        return self.last(torch.cat([up, x], 1))


class Pyramid(nn.Module):
    """Sums maps of several resolutions, each through a layer of its own, and reads all with one shared head."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv(channels, 16, stride=2), conv(16, 24, stride=2), conv(24, 32, stride=2)])
        self.laterals = nn.ModuleList([nn.Conv2d(width, WIDTH, 1) for width in (16, 24, 32)])
        self.shared = conv(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        tops = [lateral(each) for lateral, each in zip(self.laterals, maps, strict=True)]
        for place in (1, 0):
            tops[place] = tops[place] + F.interpolate(tops[place + 1], scale_factor=2, mode="nearest")
        return self.head(torch.stack([self.shared(top).mean((2, 3)) for top in tops]).mean(0))


class Experts(nn.Module):
    """Weighs several convolutions by a gate over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([conv(WIDTH, WIDTH) for _ in range(3)])
        self.gate = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        share = torch.softmax(self.gate(x.mean((2, 3))), dim=1)
        return torch.einsum("ne,nechw->nchw", share, torch.stack([expert(x) for expert in self.experts], dim=1))


class Scaled(nn.Module):
    """Scales a branch by a learned number for each channel, and another by a single one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(WIDTH, WIDTH), nn.Sequential(conv(WIDTH, 32, 1), nn.Conv2d(32, WIDTH, 1))
        self.gamma, self.alpha = nn.Parameter(1e-6 * torch.ones(WIDTH)), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma[:, None, None] * self.first(x)
        return x + self.alpha * self.second(x)


class BothWays(nn.Module):
    """Runs the network on the images and their mirror images, and takes the mean of the logits."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = framed(lambda: conv(WIDTH, WIDTH))(classes, channels, image_size)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.body(x.flip(-1))) / 2


class DropPath(nn.Module):
    """Residual branches that are left out per image, by torchvision's layer and by a mask of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(WIDTH, 24), conv(24, WIDTH)
        self.drop = StochasticDepthOfTorchvision(0.1, "row")

    def forward(self, x: Tensor) -> Tensor:
        branch = self.second(self.first(x))
        if self.training:
            branch = branch * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.9) / 0.9
        return x + self.drop(branch)


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "split_concatenate": framed(SplitAndConcatenate),
    "dense": framed(Dense, WIDTH + 24),
    "residual_stride": framed(lambda: nn.Sequential(Residual(WIDTH, 24, 2), Residual(24, 24, 1)), 24),
    "stochastic_depth": framed(StochasticDepth),
    "module_dict": framed(Branches),
    "inception": framed(Inception, 24),
    "res2": framed(Res2),
    "cross_stage": framed(CrossStage),
    "unet": framed(UNet),
    "pyramid": Pyramid,
    "experts": framed(Experts),
    "layer_scale": framed(Scaled),
    "both_ways": BothWays,
    "drop_path": framed(DropPath),
}
