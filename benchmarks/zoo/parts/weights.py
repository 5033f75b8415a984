"""Networks whose weights or modules are shared, hidden, hooked, scripted or used outside of their layer."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.zoo.parts.frames import MIDDLE, WIDTH, conv, framed, plain


class TwoNames(nn.Module):
    """Has the same layer under two names."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH)
        self.blocks = nn.ModuleList([self.conv, self.norm])
        self.fc = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.fc(F.relu(x).mean((2, 3)))


class SharedTwice(nn.Module):
    """Applies one convolution twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(F.relu(self.conv(x))))


class Tied(nn.Module):
    """Two layers share one weight."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, WIDTH, 4, 4)
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.second.weight = self.first.weight
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mean(2)
        return self.head(F.relu(self.second(F.relu(self.first(x)))))


class Buffers(nn.Module):
    """Adds a buffer, scales by a parameter and standardises by buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.ones(WIDTH, 1, 1))
        self.register_buffer("shift", torch.linspace(-1, 1, WIDTH).reshape(WIDTH, 1, 1))
        self.register_buffer("unsaved", torch.ones(WIDTH, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale + self.shift * self.unsaved


class Einsum(nn.Module):
    """Mixes channels by einsum with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(WIDTH, WIDTH) / 4)
        self.conv = conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,cd->ndhw", self.conv(x), self.matrix)


class VersionedState(nn.Module):
    """A layer that refuses tensors of another version, as torchvision's MNASNet does."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *rest: Any) -> None:
        if local_metadata.get("version") != self._version:
            raise ValueError(f"a state dict of version {local_metadata.get('version')}")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class Functional(nn.Module):
    """Holds the weights of its convolutions as parameters and in a list of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(0.1 * torch.randn(24, WIDTH, 3, 3)), nn.Parameter(torch.zeros(24))
        self.others = nn.ParameterList([nn.Parameter(0.1 * torch.randn(WIDTH, 24, 1, 1)) for _ in range(2)])
        self.scales = nn.ParameterDict({"a": nn.Parameter(torch.ones(())), "b": nn.Parameter(torch.ones(()))})

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.weight, self.bias, padding=1))
        return sum(scale * F.conv2d(x, weight) for scale, weight in zip(self.scales.values(), self.others, strict=True))


class TwoScales(nn.Module):
    """One block on the map and on its half, and the weight of a layer transposed for the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(conv(WIDTH, 24), conv(24, WIDTH))
        self.code = nn.Linear(WIDTH, 12, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        half = self.block(F.avg_pool2d(x, 2))
        x = self.block(x) + F.interpolate(half, scale_factor=2)
        code = F.relu(self.code(x.permute(0, 2, 3, 1)))
        return F.linear(code, self.code.weight.t()).permute(0, 3, 1, 2)


class Hooked(nn.Module):
    """Collects the maps of its layers by hooks."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, WIDTH, stride=2), conv(WIDTH, 24, stride=2)
        self.head = nn.Linear(WIDTH + 24, classes)
        self.maps: dict[str, Tensor] = {}
        self.first.register_forward_hook(functools.partial(self._keep, "first"))
        self.second.register_forward_hook(functools.partial(self._keep, "second"))

    def _keep(self, name: str, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self.maps[name] = output.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.second(self.first(x))
        return self.head(torch.cat([self.maps["first"], self.maps["second"]], 1))


class Cached(nn.Module):
    """Makes its table of positions at the first call and keeps it as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.table = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH), None

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.table is None or self.table.shape[-2:] != x.shape[-2:]:
            rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in x.shape[-2:]), indexing="ij")
            self.table = torch.stack([rows, columns]).to(x).mean(0)
        return self.last(x + self.table)


def scripted() -> nn.Module:
    return nn.Sequential(conv(WIDTH, WIDTH), torch.jit.script(conv(WIDTH, WIDTH)), conv(WIDTH, WIDTH))


class Features(nn.Sequential):
    """A Sequential with a forward of its own that adds its children's outputs."""

    def forward(self, x: Tensor) -> Tensor:
        for child in self:
            x = x + child(x)
        return x


class Checkpointed(nn.Module):
    """Recomputes its block in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(conv(WIDTH, 24), conv(24, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, x, use_reentrant=False) if self.training else self.block(x)


class Reused(nn.Module):
    """One ReLU, one dropout and one pool for all places, and a norm that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.pool, self.norm = nn.ReLU(inplace=True), nn.MaxPool2d(3, 1, 1), nn.BatchNorm2d(WIDTH)
        self.first, self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.first(x))))
        return self.pool(self.relu(self.norm(self.second(x))))


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "two_names": TwoNames,
    "versioned_state": plain(MIDDLE, VersionedState),
    "shared_twice": framed(SharedTwice),
    "tied": Tied,
    "buffers": framed(Buffers),
    "einsum": framed(Einsum),
    "functional": framed(Functional),
    "two_scales": framed(TwoScales),
    "hooked": Hooked,
    "cached_table": framed(Cached),
    "scripted": framed(scripted),
    "sequential_subclass": framed(lambda: Features(conv(WIDTH, WIDTH), conv(WIDTH, WIDTH))),
    "checkpointed": framed(Checkpointed),
    "reused": framed(Reused),
}
