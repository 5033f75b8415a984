"""Small networks of which each holds one construct that tools for compression stumble on.

Every factory takes ``classes``, ``channels`` and ``image_size`` and returns a network of a few thousand weights.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

WIDTH = 16


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, **options: Any) -> nn.Sequential:
    """Return convolution, batch norm and ReLU."""
    padding = options.pop("padding", kernel // 2)
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


def framed(make: Callable[[], nn.Module], outputs: int = WIDTH) -> Callable[..., nn.Module]:
    """Return the factory of a network whose inner part ``make`` returns."""

    def factory(classes: int, channels: int, image_size: int) -> nn.Module:
        return Framed(channels, classes, make(), outputs)

    return factory


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


def _norm_over_tokens() -> nn.Module:
    return Expression(
        lambda self, x: F.relu(self.norm(self.fc(x).transpose(1, 2)).transpose(1, 2)),
        fc=nn.Linear(WIDTH, WIDTH),
        norm=nn.BatchNorm1d(WIDTH),
    )


def norm_of_token_axis(classes: int, channels: int, image_size: int) -> nn.Module:
    count = (image_size // 4) ** 2
    inner = Expression(lambda self, x: self.norm(self.fc(x)), fc=nn.Linear(WIDTH, WIDTH), norm=nn.BatchNorm1d(count))
    return Tokens(classes, channels, inner)


def _attention() -> nn.Module:
    return Expression(
        lambda self, x: x + self.attention(x, x, x, need_weights=False)[0],
        attention=nn.MultiheadAttention(WIDTH, 2, batch_first=True),
    )


class FusedAttention(nn.Module):
    """Splits one projection into query, key and value, as vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.project = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, count, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0))
        return x + self.project(mixed.transpose(1, 2).reshape(batch, count, width))


class SwiGlu(nn.Module):
    """Gates one projection by another."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


def _glu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(WIDTH, 2 * WIDTH, 1), nn.GLU(dim=1), conv(WIDTH, WIDTH))


def _chunk() -> nn.Module:
    def compute(self: Any, x: Tensor) -> Tensor:
        value, gate = self.conv(x).chunk(2, dim=1)
        return value * torch.sigmoid(gate)

    return Expression(compute, conv=nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1))


class BilinearPooling(nn.Module):
    """Classifies by the products of all pairs of channels."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = conv(channels, 8, stride=2)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2)
        return self.fc(torch.bmm(x, x.transpose(1, 2)).flatten(1) / x.shape[2])


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


class Centred(nn.Module):
    """A parametrization of one's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight - weight.mean()


def _reparametrized(kind: str) -> nn.Module:
    layer = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
    if kind == "weight_norm":
        parametrizations.weight_norm(layer)
    elif kind == "spectral_norm":
        parametrizations.spectral_norm(layer)
    elif kind == "old_weight_norm":
        layer = nn.utils.weight_norm(layer)
    else:
        parametrize.register_parametrization(layer, "weight", Centred())
    return nn.Sequential(layer, nn.ReLU(), conv(WIDTH, WIDTH))


class DictOutput(nn.Module):
    """Returns a dictionary."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = framed(lambda: conv(WIDTH, WIDTH))(classes, channels, image_size)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.body(x)}


class TupleOutput(DictOutput):
    """Returns the logits and the images' mean."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.body(x), x.mean((1, 2, 3))


class AuxiliaryHead(nn.Module):
    """Returns a second head's logits while it trains."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.stem, self.body = conv(channels, WIDTH, stride=2), conv(WIDTH, WIDTH)
        self.head, self.auxiliary = nn.Linear(WIDTH, classes), nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Any:
        early = self.stem(x)
        logits = self.head(self.body(early).mean((2, 3)))
        return (logits, self.auxiliary(early.mean((2, 3)))) if self.training else logits


class StochasticDepth(nn.Module):
    """Leaves a branch out at random while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.rand(()) < 0.2:
            return x
        return x + self.branch(x)


class Lambda(nn.Module):
    """A layer of a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Branches(nn.Module):
    """Sums the layers of a ModuleDict."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({"narrow": conv(WIDTH, WIDTH, 1), "wide": conv(WIDTH, WIDTH, 5)})

    def forward(self, x: Tensor) -> Tensor:
        return sum(branch(x) for branch in self.branches.values())  # type: ignore[return-value]


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


class Rows(nn.Module):
    """Reads the rows of the map with an LSTM."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = conv(channels, WIDTH, stride=2)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows, _ = self.lstm(self.conv(x).mean(3).transpose(1, 2))
        return self.head(rows[:, -1])


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


class PatchTable(nn.Module):
    """Adds a learned position and a class token."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, WIDTH, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Embedding((image_size // 4) ** 2 + 1, WIDTH)
        self.mix = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x).flatten(2).transpose(1, 2)], 1)
        x = x + self.positions(torch.arange(x.shape[1], device=x.device))
        return self.head((x + self.mix(x))[:, 0])


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


class SamePadding(nn.Conv2d):
    """A convolution of a library's own class, padded in its forward, as timm's Conv2dSame."""

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 1, 0, 1))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class NormAndActivation(nn.BatchNorm2d):
    """A batch norm of a library's own class with modules of its own, as timm's BatchNormAct2d."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(
            F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        )


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


def _norms(norm: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), norm(), nn.ReLU(), conv(WIDTH, WIDTH))


def _encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.1, batch_first=True)


def plain(*layers: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    """Return the factory of a network with these layers in the middle."""
    return framed(lambda: nn.Sequential(*(layer() for layer in layers)))


MIDDLE = functools.partial(conv, WIDTH, WIDTH)
CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "view_flatten": FlattenByView,
    "shapes_in_code": ShapesInTheCode,
    "asserts": AssertInForward,
    "two_names": TwoNames,
    "norm_over_tokens": tokens(_norm_over_tokens),
    "norm_of_token_axis": norm_of_token_axis,
    "encoder_layer": tokens(_encoder),
    "multihead_attention": tokens(_attention),
    "fused_attention": tokens(FusedAttention),
    "swiglu": tokens(SwiGlu),
    "glu": framed(_glu),
    "chunked_gate": framed(_chunk),
    "bilinear_pooling": BilinearPooling,
    "channel_shuffle": framed(Shuffle),
    "module_channel_shuffle": plain(MIDDLE, lambda: nn.ChannelShuffle(4), functools.partial(MIDDLE, groups=4)),
    "maxout": framed(Maxout),
    "fold": plain(FoldedPatches, MIDDLE),
    "own_layer_classes": plain(
        lambda: SamePadding(WIDTH, WIDTH, 2, bias=False), lambda: NormAndActivation(WIDTH), MIDDLE
    ),
    "versioned_state": plain(MIDDLE, VersionedState),
    "split_concatenate": framed(SplitAndConcatenate),
    "dense": framed(Dense, WIDTH + 24),
    "squeeze_excitation": framed(Gate),
    "residual_stride": framed(lambda: nn.Sequential(Residual(WIDTH, 24, 2), Residual(24, 24, 1)), 24),
    "shared_twice": framed(SharedTwice),
    "tied": Tied,
    "weight_norm": framed(functools.partial(_reparametrized, "weight_norm")),
    "old_weight_norm": framed(functools.partial(_reparametrized, "old_weight_norm")),
    "spectral_norm": framed(functools.partial(_reparametrized, "spectral_norm")),
    "parametrization": framed(functools.partial(_reparametrized, "own")),
    "dict_output": DictOutput,
    "tuple_output": TupleOutput,
    "auxiliary_head": AuxiliaryHead,
    "grouped": plain(functools.partial(MIDDLE, groups=4), MIDDLE),
    "depthwise": plain(functools.partial(MIDDLE, groups=WIDTH), functools.partial(MIDDLE, kernel=1)),
    "depthwise_multiplier": plain(
        functools.partial(conv, WIDTH, 2 * WIDTH, groups=WIDTH), functools.partial(conv, 2 * WIDTH, WIDTH, 1)
    ),
    "dilated": plain(functools.partial(MIDDLE, dilation=2, padding=2), MIDDLE),
    "transposed": plain(lambda: nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2), MIDDLE),
    "pixel_shuffle": plain(lambda: nn.Conv2d(WIDTH, 4 * WIDTH, 1), lambda: nn.PixelShuffle(2), MIDDLE),
    "one_dimensional": OneDimensional,
    "three_dimensional": ThreeDimensional,
    "group_norm": framed(_norms(lambda: nn.GroupNorm(4, WIDTH))),
    "instance_norm": framed(_norms(lambda: nn.InstanceNorm2d(WIDTH, affine=True))),
    "layer_norm": tokens(lambda: nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())),
    "prelu": plain(lambda: nn.Conv2d(WIDTH, WIDTH, 3), lambda: nn.PReLU(WIDTH), MIDDLE),
    "dropout": plain(MIDDLE, lambda: nn.Dropout2d(0.1), MIDDLE),
    "stochastic_depth": framed(StochasticDepth),
    "lambda_layer": plain(MIDDLE, lambda: Lambda(torch.abs), MIDDLE),
    "module_dict": framed(Branches),
    "buffers": framed(Buffers),
    "einsum": framed(Einsum),
    "lstm_head": Rows,
    "patch_table": PatchTable,
    "adaptive_pooling": plain(MIDDLE, lambda: nn.AdaptiveAvgPool2d(3), MIDDLE),
    "no_bias": lambda classes, channels, image_size: Tokens(classes, channels, SwiGlu(), bias=False),
}


def __getattr__(name: str) -> Callable[..., nn.Module]:
    """Make each construct a factory of the module, as ``package.module:factory`` needs."""
    if name not in CONSTRUCTS:
        raise AttributeError(name)
    make = CONSTRUCTS[name]

    def factory(classes: int, channels: int, image_size: int) -> nn.Module:
        return make(classes, channels, image_size)

    factory.__name__ = factory.__qualname__ = name
    return factory
