"""Ways of writing: constants of the file, configurations, tables of layers, weights that are made as they are used."""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo.parts.frames import WIDTH, conv, framed

HIDDEN, GRID = 24, 4


class FileConstants(nn.Module):
    """Views by constants of the file."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, WIDTH, stride=2), conv(WIDTH, HIDDEN)
        self.fc1, self.fc2 = nn.Linear(HIDDEN * GRID * GRID, 32), nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.conv2(self.conv1(x)), GRID)
        x = x.view(-1, HIDDEN * GRID * GRID)
        return self.fc2(F.relu(self.fc1(x)))


@dataclasses.dataclass
class Config:
    """Sizes of a network."""

    hidden: int = 24
    heads: int = 4
    blocks: tuple[int, ...] = (1, 1)


class Configured(nn.Module):
    """Holds a dataclass of its sizes and computes with them."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.cfg = Config()
        self.stem = conv(channels, WIDTH, stride=2)
        self.expand, self.classifier = conv(WIDTH, self.cfg.hidden), nn.Linear(self.cfg.hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(self.stem(x))
        x = x.view(x.size(0), self.cfg.hidden, -1).mean(-1)
        return self.classifier(x.view(-1, self.cfg.hidden))


class LayersByName(nn.Module):
    """Sets its layers by computed names and finds them again with ``getattr``; slices of a Sequential."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        for i, (inputs, outputs) in enumerate(((channels, WIDTH), (WIDTH, 24), (24, 32))):
            setattr(self, f"layer{i + 1}", conv(inputs, outputs, stride=2 if i == 0 else 1))
        self.features = nn.Sequential(*conv(32, 24), *conv(24, WIDTH))
        self.fc = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(3):
            x = getattr(self, f"layer{i + 1}")(x)
        x = self.features[3:](self.features[:3](x))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class ParametersByName(nn.Module):
    """Convolves and maps by parameters of a ParameterDict and a ParameterList, in loops with zip."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.ParameterList(
            [nn.Parameter(torch.randn(o, i, 3, 3) / (3 * i**0.5)) for i, o in ((WIDTH, 24), (24, WIDTH))]
        )
        self.shifts = nn.ParameterDict({"a": nn.Parameter(torch.zeros(24)), "b": nn.Parameter(torch.zeros(WIDTH))})
        self.norms = nn.ModuleDict({"a": nn.BatchNorm2d(24), "b": nn.BatchNorm2d(WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        for kernel, name in zip(self.kernels, ("a", "b"), strict=True):
            x = F.relu(self.norms[name](F.conv2d(x, kernel, self.shifts[name], padding=1)), inplace=True)
        return x


class LowRank(nn.Module):
    """Multiplies two thin matrices to the weight of a layer, and adds such a product to another (LoRA)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24))
        self.u, self.v = nn.Parameter(torch.randn(32, 6) / 6**0.5), nn.Parameter(torch.randn(6, 24) / 24**0.5)
        self.base, self.scaling = nn.Linear(32, classes), 0.5
        self.lora_a, self.lora_b = nn.Parameter(torch.randn(4, 32) / 6), nn.Parameter(torch.zeros(classes, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.linear(self.body(x).mean((2, 3)), self.u @ self.v))
        return self.base(x) + (x @ self.lora_a.T @ self.lora_b.T) * self.scaling


class HyperWeights(nn.Module):
    """Makes the kernels of a convolution from an embedding (hypernetworks)."""

    def __init__(self) -> None:
        super().__init__()
        self.z, self.make = nn.Parameter(torch.randn(8)), nn.Linear(8, 24 * WIDTH * 9)
        self.norm, self.after = nn.BatchNorm2d(24), nn.Sequential(conv(24, 32), conv(32, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.make(self.z).view(24, WIDTH, 3, 3) / 12
        return self.after(F.relu(self.norm(F.conv2d(x, kernel, padding=1))))


class SlicedShortcut(nn.Module):
    """Adds the input to the first channels of a wider output, in place (PyramidNet's shortcut)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.back = conv(WIDTH, 24), nn.Conv2d(24, 32, 3, padding=1), conv(32, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.first(x))
        out[:, : x.size(1)] += x
        return self.back(F.relu(out))


class NewOrder(nn.Module):
    """Puts chunks of channels together in another order, repeated and doubled with their negatives (CReLU)."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after, self.back = conv(WIDTH, 24), conv(48, 24, 1), conv(48, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = torch.chunk(self.before(x), 3, dim=1)
        x = torch.cat([c, a, b], dim=1)
        x = self.after(F.relu(torch.cat([x, -x], dim=1)))
        return self.back(x.repeat(1, 2, 1, 1) * torch.repeat_interleave(x, 2, dim=1))


class ImagePyramid(nn.Module):
    """One trunk for the image at two sizes, without the head of the second in training by a flag of its own."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24))
        self.fuse, self.p = nn.Linear(48, classes), 0.2

    def forward(self, x: Tensor) -> Tensor:
        fine = self.trunk(x).mean((2, 3))
        coarse = self.trunk(F.avg_pool2d(x, 2)).mean((2, 3))
        return self.fuse(F.dropout(torch.cat([fine, coarse], 1), p=self.p, training=self.training))


class FourierFeatures(nn.Module):
    """Joins sines and cosines of the places, by a fixed matrix in a buffer, and multiplies complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("B", torch.randn(2, 4))
        self.mix, self.back = conv(WIDTH + 8, 24), conv(24, WIDTH)
        self.complex_weight = nn.Parameter(torch.randn(24, 8, 5, 2) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        ys, xs = torch.meshgrid(torch.linspace(0, 1, h), torch.linspace(0, 1, w), indexing="ij")
        projected = 6.28 * torch.stack([ys, xs], -1) @ self.B
        places = torch.cat([projected.sin(), projected.cos()], -1).permute(2, 0, 1).expand(b, -1, -1, -1)
        x = self.mix(torch.cat([x, places], 1))
        spectrum = torch.fft.rfft2(x, dim=(2, 3), norm="ortho") * torch.view_as_complex(self.complex_weight)
        return self.back(torch.fft.irfft2(spectrum, s=(h, w), dim=(2, 3), norm="ortho"))


class BatchEnsemble(nn.Module):
    """One weight, scaled for each member before and after; the mean of the members' logits."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24))
        self.shared, self.head = nn.Linear(24, 32), nn.Linear(32, classes)
        self.r, self.s = nn.Parameter(torch.randn(3, 24)), nn.Parameter(torch.randn(3, 32))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).mean((2, 3))
        members = [self.head(F.relu(self.shared(x * r) * s)) for r, s in zip(self.r, self.s, strict=True)]
        return torch.stack(members).mean(0)


class DropBlock(nn.Module):
    """Blanks blocks of the map while it trains, by a mask of its own, and normalises by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(WIDTH, 24, 3, padding=1), conv(24, WIDTH)
        self.weight, self.bias = nn.Parameter(torch.ones(24)), nn.Parameter(torch.zeros(24))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.training:
            mask = (torch.rand(x.shape[0], *x.shape[2:], device=x.device) < 0.05).float()
            block = 1 - F.max_pool2d(mask[:, None], kernel_size=3, stride=1, padding=1).squeeze(1)
            x = x * block[:, None] * block.numel() / block.sum()
        rms = x.pow(2).mean(1, keepdim=True).add(1e-6).rsqrt()
        return self.second(F.relu(x * rms * self.weight[:, None, None] + self.bias[:, None, None]))


class StandardizedByHand(nn.Module):
    """A convolution that standardises its weights by mean and spread of a view (weight standardisation)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(WIDTH, 24, 3, padding=1), nn.Conv2d(24, WIDTH, 3, padding=1)
        self.norm = nn.GroupNorm(4, 24)

    def _standardized(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        weight = layer.weight
        weight = weight - weight.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True).mean(dim=3, keepdim=True)
        spread = weight.view(weight.size(0), -1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        return F.conv2d(x, weight / spread.expand_as(weight), layer.bias, layer.stride, layer.padding)

    def forward(self, x: Tensor) -> Tensor:
        return self._standardized(self.second, F.relu(self.norm(self._standardized(self.first, x))))


class LogProbabilities(nn.Module):
    """torch's MNIST example: dropouts, ``torch.flatten`` and a log_softmax at the end."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, WIDTH, 3, 1), nn.Conv2d(WIDTH, 32, 3, 1)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(32 * ((image_size - 4) // 2) ** 2, 24), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.relu(self.fc1(torch.flatten(self.dropout1(x), 1)))
        return F.log_softmax(self.fc2(self.dropout2(x)), dim=1)


class Frozen(nn.Module):
    """Computes its stem without gradients."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.stem, self.body, self.fc = conv(channels, WIDTH, stride=2), conv(WIDTH, 24), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.stem(x)
        return self.fc(self.body(x).mean((2, 3)))


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "file_constants": FileConstants,
    "configured": Configured,
    "layers_by_name": LayersByName,
    "parameters_by_name": framed(ParametersByName),
    "low_rank": LowRank,
    "hyper_weights": framed(HyperWeights),
    "sliced_shortcut": framed(SlicedShortcut),
    "new_order": framed(NewOrder),
    "image_pyramid": ImagePyramid,
    "fourier_features": framed(FourierFeatures),
    "batch_ensemble": BatchEnsemble,
    "drop_block": framed(DropBlock),
    "standardized_by_hand": framed(StandardizedByHand),
    "log_probabilities": LogProbabilities,
    "frozen_stem": Frozen,
}
