"""Networks that weigh channels or places by what they compute: gates, attention over channels, products."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo.parts.frames import WIDTH, Expression, conv, framed, tokens


def _glu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(WIDTH, 2 * WIDTH, 1), nn.GLU(dim=1), conv(WIDTH, WIDTH))


def _chunk() -> nn.Module:
    def compute(self: Any, x: Tensor) -> Tensor:
        value, gate = self.conv(x).chunk(2, dim=1)
        return value * torch.sigmoid(gate)

    return Expression(compute, conv=nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(WIDTH, WIDTH)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(WIDTH, 8, 1), nn.ReLU(), nn.Conv2d(8, WIDTH, 1), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.gate(x)


class BilinearPooling(nn.Module):
    """Classifies by the products of all pairs of channels."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = conv(channels, 8, stride=2)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2)
        return self.fc(torch.bmm(x, x.transpose(1, 2)).flatten(1) / x.shape[2])


class Attention2d(nn.Module):
    """Weighs channels by an MLP over their mean and maximum, then places by a convolution (CBAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, WIDTH))
        self.places = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        weights = self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1))
        x = x * torch.sigmoid(weights)[:, :, None, None]
        seen = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(self.places(seen))


class EfficientGate(nn.Module):
    """Weighs channels by a convolution along them (ECA)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(WIDTH, 24), conv(24, WIDTH)
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        weights = self.along(x.mean((2, 3)).unsqueeze(1)).sigmoid().squeeze(1)
        return self.second(x * weights[..., None, None])


class SelectiveKernels(nn.Module):
    """Chooses between two kernels for each channel by a softmax (SKNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH, dilation=2, padding=2)
        self.squeeze, self.expand = nn.Linear(WIDTH, 8), nn.Linear(8, 2 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.small(x), self.large(x)], 1)
        weights = self.expand(F.relu(self.squeeze(both.sum(1).mean((2, 3)))))
        weights = torch.softmax(weights.view(x.shape[0], 2, -1), 1)
        return (both * weights[..., None, None]).sum(1)


class ResponseNorm(nn.Module):
    """Divides the energy of each channel by the mean over channels (GRN), as ConvNeXt V2 does."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(WIDTH, 32, 1), nn.Conv2d(32, WIDTH, 1)
        self.gamma, self.beta = nn.Parameter(torch.ones(1, 32, 1, 1)), nn.Parameter(torch.zeros(1, 32, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        up = F.gelu(self.up(x))
        energy = torch.linalg.vector_norm(up, dim=(2, 3), keepdim=True)
        up = up + self.gamma * (up * (energy / (energy.mean(1, keepdim=True) + 1e-6))) + self.beta
        return x + self.down(up)


class DynamicConvolution(nn.Module):
    """Mixes several weights for each image and convolves all images as groups (CondConv)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(3, WIDTH * WIDTH * 9))
        self.route, self.last = nn.Linear(WIDTH, 3), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weights = (self.route(x.mean((2, 3))).sigmoid() @ self.weight).view(-1, c, 3, 3)
        mixed = F.conv2d(x.reshape(1, n * c, h, w), weights, padding=1, groups=n)
        return self.last(mixed.view(n, -1, h, w))


class SpatialTransformer(nn.Module):
    """Samples the map along a grid that it computes from the map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)
        self.place = nn.Linear(WIDTH, 6)
        nn.init.zeros_(self.place.weight)
        self.place.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        grid = F.affine_grid(self.place(x.mean((2, 3))).view(-1, 2, 3), list(x.shape), align_corners=False)
        return self.last(F.grid_sample(x, grid, align_corners=False))


class GeneralizedMean(nn.Module):
    """Pools by a learned power, joined with the largest values, and normalises the features."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, WIDTH))
        self.power = nn.Parameter(torch.tensor(3.0))
        self.head = nn.Linear(2 * WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        mean = F.avg_pool2d(x.clamp(min=1e-6).pow(self.power), x.shape[-2:]).pow(1.0 / self.power).flatten(1)
        return self.head(F.normalize(torch.cat([mean, F.adaptive_max_pool2d(x, 1).flatten(1)], 1), dim=1))


class Bilinear(nn.Module):
    """Classifies by a bilinear layer of two views of the features."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, WIDTH))
        self.first, self.second = nn.Linear(WIDTH, 12), nn.Linear(WIDTH, 12)
        self.head = nn.Bilinear(12, 12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        return self.head(F.relu(self.first(x)), F.relu(self.second(x)))


class GatedTokens(nn.Module):
    """Gates half of the channels by a mix of the places of the other half (gMLP)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 48), nn.Linear(24, WIDTH)
        self.gate_norm, self.mix = nn.LayerNorm(24), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = F.gelu(self.up(self.norm(x))).chunk(2, dim=-1)
        gate = self.mix(self.gate_norm(gate).transpose(1, 2)).transpose(1, 2)
        return x + self.down(value * gate)


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "glu": framed(_glu),
    "chunked_gate": framed(_chunk),
    "squeeze_excitation": framed(Gate),
    "bilinear_pooling": BilinearPooling,
    "channel_attention": framed(Attention2d),
    "efficient_gate": framed(EfficientGate),
    "selective_kernels": framed(SelectiveKernels),
    "response_norm": framed(ResponseNorm),
    "dynamic_convolution": framed(DynamicConvolution),
    "spatial_transformer": framed(SpatialTransformer),
    "generalized_mean": GeneralizedMean,
    "bilinear": Bilinear,
    "gated_tokens": tokens(GatedTokens),
}
