"""Small networks that each hold one construct of larger ones; images [N, 1, 8, 8] -> logits [N, 3]."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Transformer(nn.Module):
    """The rows of an image as tokens of an nn.TransformerEncoderLayer, which reads its layers' weights itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.fc = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.layer(images.squeeze(1)).mean(1))


class Attention(nn.Module):
    """nn.MultiheadAttention between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.attention = nn.Linear(8, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.before(images.squeeze(1))
        return self.fc(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


class Gated(nn.Module):
    """A gated linear unit over channels, and one with SiLU over features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.gate, self.up, self.down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.glu(self.norm(self.conv(images)), 1).mean((2, 3))
        return self.down(F.silu(self.gate(hidden)) * self.up(hidden))


class Bounded(nn.Module):
    """Values between a whole number and another, in place and not, as hard sigmoids are written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 8, 3), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv(images)
        gate = (hidden / 6 + 0.5).clamp(0, 1.0)
        return self.fc((hidden * gate).clamp_(min=-0.5, max=3).mean((2, 3)))


class Measured(nn.Module):
    """Sizes and settings of its layers in the code: a blur of as many channels as the convolution before has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden, channels = self.conv(images).relu(), self.conv.out_channels
        blur = torch.full((channels, 1, 3, 3), 1 / 9)
        hidden = F.conv2d(hidden, blur, stride=self.conv.stride, groups=channels)
        return self.fc(hidden.mean((2, 3)) / self.fc.in_features**0.5)


class Shuffled(nn.Module):
    """Channels shuffled between grouped convolutions, with the shape in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=2)
        self.norm, self.fc = nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.one(images).relu()
        count, channels, height, width = hidden.size()
        hidden = hidden.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return self.fc(self.norm(self.two(hidden.view(count, channels, height, width))).relu().mean((2, 3)))


class Checked(nn.Module):
    """Checks of the input, a table and a path that depend on its shape, and a loop over it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(images, Tensor) and images.shape[1] == 1, "one channel"
        if images.shape[2] > 6:
            images = F.avg_pool2d(images, 2)
        hidden = self.norm(self.conv(images)) * {4: 1.0, 8: 0.5}[images.shape[2]]
        total = sum(hidden[:, :, row] for row in range(hidden.shape[2]))
        return self.fc(total.mean(2))


class Twice(nn.Module):
    """One convolution and one linear layer that are called twice, and a weight that the forward reads transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.mix = nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv(self.conv(self.stem(images)).relu()).relu().mean((2, 3))
        return self.fc(F.linear(self.mix(self.mix(hidden)), self.mix.weight.t()))


class Bilinear(nn.Module):
    """Bilinear pooling, and a resize whose size depends on the image's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.interpolate(self.conv(images), scale_factor=2, mode="bilinear", align_corners=False).flatten(2)
        return self.fc((hidden @ hidden.transpose(1, 2)).flatten(1) / hidden.shape[2])


class Padded(nn.Module):
    """Padding that is reflected, dilation, a stride, a grouped convolution with multiplier and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=2, padding_mode="reflect")
        self.two = nn.Conv2d(4, 8, 3, stride=2, dilation=2, padding="valid", groups=4)
        self.up, self.fc = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.up(F.relu6(self.two(self.one(images)))).amax((2, 3)))


class Named(nn.Module):
    """Layers in a plain list and under two names, and a layer that is called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.net, self.steps = nn.Sequential(self.conv, self.norm), [self.norm, nn.ReLU()]

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv(images)
        for step in self.steps:
            hidden = step(hidden)
        return self.fc(input=hidden.mean((2, 3)))


class Distances(nn.Module):
    """Compares features with points by two kinds of distance."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.points = nn.Conv2d(1, 6, 3), nn.Parameter(torch.randn(3, 6))

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images).mean((2, 3))
        return -torch.cdist(features, self.points) - torch.cdist(features[None], self.points[None], p=1.0).squeeze(0)


CONSTRUCTS = (
    Transformer,
    Attention,
    Gated,
    Bounded,
    Measured,
    Shuffled,
    Checked,
    Twice,
    Bilinear,
    Padded,
    Named,
    Distances,
)


def construct(name: str) -> nn.Module:
    """Build a network with norms that have seen data, its weights drawn from a fixed seed."""
    torch.manual_seed(0)
    module = next(kind for kind in CONSTRUCTS if kind.__name__ == name)()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2.0)
            norm.weight.data.uniform_(0.5, 2.0)
    return module.eval()
