"""Factories outside the package, for tests of ``package.module:factory``."""

import functools
import sys

import torch
import torch.nn.functional as F
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


def unannotated(classes, channels, image_size):
    return Linear(classes, channels, image_size)


def annotated_for_type_checkers(classes: int, channels: int, image_size: "Absent") -> nn.Module:  # noqa: F821
    return Linear(classes, channels, image_size)


def with_depth(classes: int, channels: int, image_size: int, depth: int) -> nn.Module:
    return Linear(classes, channels, image_size)


in_need, partial = with_depth, functools.partial(with_depth, depth=2)


class Renamed(Linear):
    def __init__(self, num_classes=10, in_chans=3, img_size=32):
        super().__init__(num_classes, in_chans, img_size)


instance = Renamed()


def of_classes_only(n_classes, depth=1):
    return Linear(n_classes, 1, 8)


def with_options(num_classes, **options):
    return Linear(num_classes, 1, 8, **options)


def of_nothing():
    return Linear(10, 1, 8)


def wrapped(kind, classes, channels, image_size):
    network = Linear(classes, channels, image_size)
    kinds = {
        "parallel": lambda: nn.DataParallel(network),
        "compiled": lambda: torch.compile(network),
        "half": network.half,
        "double": network.double,
        "frozen": lambda: network.requires_grad_(False),
        "class": lambda: Linear,
        "exit": lambda: sys.exit("bye"),
    }
    return kinds[kind]()


parallel, compiled, half, double, frozen, a_class, exits = (
    functools.partial(wrapped, kind) for kind in ("parallel", "compiled", "half", "double", "frozen", "class", "exit")
)


def compiled_parts(classes, channels, image_size):
    network = Linear(classes, channels, image_size)
    network.layers[0], network.layers[1] = nn.DataParallel(network.layers[0]), torch.compile(network.layers[1])
    network.layers.compile()
    return network


def broken(classes: int, channels: int, image_size: int) -> nn.Module:
    return Linear(classes, channels, image_size // 0)


def for_images_of_24(classes: int, channels: int, image_size: int) -> nn.Module:
    return Linear(classes, channels, 24)


def of_several_outputs(classes: int, channels: int, image_size: int) -> nn.Module:
    class Several(Linear):
        def forward(self, images):
            return [super().forward(images)]

    return Several(classes, channels, image_size)


def lazy(classes: int, channels: int, image_size: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))


class Squeezed(Linear):
    def forward(self, images):
        return super().forward(images).squeeze()


class TwoHeads(Linear):
    def forward(self, images):
        logits = super().forward(images)
        return logits, 2 * logits


def of_two_heads(classes: int, channels: int, image_size: int) -> nn.Module:
    return TwoHeads(classes, channels, image_size)


class Tied(nn.Module):
    """Convolutions and a head whose weights are those of other layers, three of one weight, and a module used twice."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1, bias=index > 0) for index in range(3))
        self.b.weight = self.c.weight = self.a.weight
        self.again = nn.Conv2d(4, 4, 1)
        self.blocks = nn.Sequential(self.again, nn.ReLU())
        self.embed = nn.Embedding(classes, 4)
        self.head = nn.Linear(4, classes)
        self.head.weight = self.embed.weight

    def forward(self, images):
        hidden = self.stem(images)
        for layer in (self.a, self.b, self.c):
            hidden = layer(hidden).relu()
        hidden = self.blocks(self.again(hidden)).mean((2, 3))
        return self.head(hidden + self.embed.weight.mean(0))


class Computed(nn.Module):
    """Convolutions whose weights are computed from other parameters, by hooks and by parametrizations."""

    def __init__(self, kind: str = "weight_norm") -> None:
        super().__init__()
        wrap = {
            "weight_norm": nn.utils.weight_norm,
            "spectral_norm": nn.utils.spectral_norm,
            "new_weight_norm": nn.utils.parametrizations.weight_norm,
            "new_spectral_norm": nn.utils.parametrizations.spectral_norm,
            "orthogonal": nn.utils.parametrizations.orthogonal,
        }[kind]
        self.conv, self.fc = wrap(nn.Conv2d(1, 4, 3)), nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(self.conv(images).relu().mean((2, 3)))


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


def scripted(classes: int, channels: int, image_size: int) -> nn.Module:
    """Return a network with a layer of TorchScript."""
    return nn.Sequential(nn.Flatten(), torch.jit.script(nn.Linear(channels * image_size**2, classes)))


class Functional(nn.Module):
    """Convolutions that only functions read, in ConvNeXt's and in LeNet's way, and a ReLU before a mean."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(channels, 8, 4, stride=2), nn.Conv2d(8, 8, 3, padding=1)
        self.depthwise, self.norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.LayerNorm(8)
        self.last, self.relu = nn.Conv2d(8, 16, 1), nn.ReLU()
        self.head = nn.Linear(16, classes)

    def forward(self, images):
        values = F.max_pool2d(F.relu(self.stem(images)), 2)
        values = F.silu(self.conv(values))
        values = values + self.norm(self.depthwise(values).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.relu(self.last(values)).mean((2, 3)))


class Excited(nn.Module):
    """An inverted residual block with SiLU, squeeze and excitation, in EfficientNet's way, and a SiLU before a norm."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.stem, self.stem_act = nn.Conv2d(channels, 8, 3, stride=2), nn.SiLU(inplace=True)
        self.depthwise, self.act = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.SiLU(inplace=True)
        self.pool, self.squeeze, self.squeezed = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.SiLU()
        self.excite, self.gate = nn.Conv2d(4, 8, 1), nn.Sigmoid()
        self.project, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.last_act, self.norm = nn.SiLU(), nn.GroupNorm(4, 16)
        self.head = nn.Linear(16, classes)

    def forward(self, images):
        values = self.stem_act(self.norms[0](self.stem(images)))
        values = self.act(self.norms[1](self.depthwise(values)))
        gates = self.gate(self.excite(self.squeezed(self.squeeze(self.pool(values)))))
        values = self.norms[2](self.project(gates * values))
        return self.head(self.norm(self.last_act(self.last(values))).mean((2, 3)))
