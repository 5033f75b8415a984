"""Constructs of papers in their authors' own code: pyramids, octaves, involutions, experts, early exits."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo.parts.frames import WIDTH, conv, framed, tokens


class KolmogorovArnold(nn.Module):
    """A KAN layer: a SiLU branch, and radial functions of every input with weights of their own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(-2, 2, 5))
        self.base_weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.spline_weight = nn.Parameter(torch.randn(outputs, inputs, 5) / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        basis = torch.exp(-((x.unsqueeze(-1) - self.centres) ** 2))
        spline = F.linear(basis.view(x.size(0), -1), self.spline_weight.view(self.spline_weight.size(0), -1))
        return F.linear(F.silu(x), self.base_weight) + spline


class Kan(nn.Module):
    """KAN layers behind convolutions."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, WIDTH, stride=2))
        self.first, self.second = KolmogorovArnold(WIDTH, 24), KolmogorovArnold(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.body(x).mean((2, 3))))


class NonLocal(nn.Module):
    """Attention over places by 1x1 convolutions, viewed by the number of inner channels it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.inter_channels = 8
        self.g, self.theta, self.phi = (nn.Conv2d(WIDTH, 8, 1) for _ in range(3))
        self.w = nn.Sequential(nn.Conv2d(8, WIDTH, 1), nn.BatchNorm2d(WIDTH))
        self.more = conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch_size = x.size(0)
        g_x = self.g(x).view(batch_size, self.inter_channels, -1).permute(0, 2, 1)
        theta_x = self.theta(x).view(batch_size, self.inter_channels, -1).permute(0, 2, 1)
        phi_x = self.phi(x).view(batch_size, self.inter_channels, -1)
        y = torch.matmul(F.softmax(torch.matmul(theta_x, phi_x), dim=-1), g_x)
        y = y.permute(0, 2, 1).contiguous().view(batch_size, self.inter_channels, *x.size()[2:])
        return self.more(self.w(y) + x)


class Involution(nn.Module):
    """Kernels that each place computes for its neighbours, shared by groups of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.groups, self.kernel = 4, 3
        self.reduce, self.span = conv(WIDTH, 8, 1), nn.Conv2d(8, 9 * 4, 1)
        self.unfold = nn.Unfold(3, padding=1)
        self.after = conv(WIDTH, 24)
        self.back = conv(24, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        weight = self.span(self.reduce(x)).view(b, self.groups, 9, h, w).unsqueeze(2)
        out = self.unfold(x).view(b, self.groups, c // self.groups, 9, h, w)
        return self.back(self.after((weight * out).sum(dim=3).view(b, c, h, w)))


class CoordConv(nn.Module):
    """Joins the places' coordinates as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.back = conv(WIDTH + 2, 24), conv(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h, device=x.device).view(1, 1, h, 1).expand(b, 1, h, w)
        columns = torch.linspace(-1, 1, w, device=x.device).view(1, 1, 1, w).expand(b, 1, h, w)
        return self.back(self.conv(torch.cat([x, rows, columns], dim=1)))


class Octave(nn.Module):
    """Fine and coarse maps that read each other, handed over as a tuple (OctConv)."""

    def __init__(self, inputs: tuple[int, int], outputs: tuple[int, int]) -> None:
        super().__init__()
        self.paths = nn.ModuleDict(
            {
                f"{way_in}{way_out}": nn.Conv2d(inputs[i], outputs[o], 3, padding=1)
                for i, way_in in enumerate("hl")
                for o, way_out in enumerate("hl")
                if inputs[i] and outputs[o]
            }
        )

    def forward(self, pair: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        high, low = pair
        out_high = self.paths["hh"](high)
        if low is not None:
            out_high = out_high + F.interpolate(self.paths["lh"](low), scale_factor=2)
        out_low = self.paths["hl"](F.avg_pool2d(high, 2)) if "hl" in self.paths else None
        if low is not None and "ll" in self.paths:
            out_low = out_low + self.paths["ll"](low)
        return F.relu(out_high), None if out_low is None else F.relu(out_low)


class Octaves(nn.Module):
    """Three octave layers."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [((WIDTH, 0), (12, 8)), ((12, 8), (12, 8)), ((12, 8), (WIDTH, 0))]
        self.layers = nn.ModuleList(Octave(inputs, outputs) for inputs, outputs in sizes)

    def forward(self, x: Tensor) -> Tensor:
        pair: tuple[Tensor, Tensor | None] = (x, None)
        for layer in self.layers:
            pair = layer(pair)
        return pair[0]


class Atrous(nn.Module):
    """Pyramid of dilated convolutions with a branch of the whole image, resized back (ASPP)."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv(WIDTH, 8, 1), *(conv(WIDTH, 8, 3, dilation=rate, padding=rate) for rate in (2, 3))]
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(WIDTH, 8, 1), nn.ReLU())
        self.project = nn.Sequential(conv(32, WIDTH, 1), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x) for branch in self.branches]
        pooled = F.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.project(torch.cat([*parts, pooled], dim=1))


class SpatialPyramid(nn.Module):
    """Pools to several grids and joins them as features (SPPNet)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.levels = [1, 2, 4]
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24))
        self.head = nn.Linear(24 * 21, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        pooled = [F.adaptive_max_pool2d(x, level).view(x.size(0), -1) for level in self.levels]
        return self.head(torch.cat(pooled, 1))


class Star(nn.Module):
    """Multiplies two branches element by element (StarNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.dwconv, self.f1, self.f2 = (
            nn.Conv2d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH),
            *(nn.Conv2d(WIDTH, 48, 1) for _ in range(2)),
        )
        self.g = nn.Conv2d(48, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x)
        return x + self.g(F.relu6(self.f1(y)) * self.f2(y))


class HiddenState(nn.Module):
    """An LSTM over rows whose first state is zeros of the size it holds, as tutorials write it."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.hidden_size, self.num_layers = 24, 2
        self.lstm = nn.LSTM(channels * image_size, 24, 2, batch_first=True)
        self.fc = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 1, 3).flatten(2)
        h0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size)
        c0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size)
        out, _ = self.lstm(x, (h0, c0))
        return self.fc(out[:, -1, :])


class MixtureOfExperts(nn.Module):
    """Sends every token to the best two of four MLPs, by indices that it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2, -1)
        gate = torch.zeros_like(self.router(x)).scatter(-1, chosen, weights)
        return x + sum(gate[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class Nested(nn.Module):
    """Layers that pass dictionaries of lists of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.join = conv(WIDTH, 24, stride=2), conv(24, WIDTH), conv(2 * WIDTH, WIDTH)

    def _features(self, x: Tensor) -> dict[str, list[Tensor]]:
        low = self.down(x)
        return {"maps": [x, low], "sizes": [torch.tensor(x.shape[-2:])]}

    def forward(self, x: Tensor) -> Tensor:
        found = self._features(x)
        up = F.interpolate(self.up(found["maps"][1]), size=found["maps"][0].shape[-2:], mode="nearest")
        return self.join(torch.cat([found["maps"][0], up], 1))


class Unflattened(nn.Module):
    """Goes through a narrow vector and back to a map by ``nn.Unflatten`` with numbers (autoencoders)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(conv(WIDTH, 8, stride=2), nn.Flatten(), nn.Linear(8 * 16, 24), nn.ReLU())
        self.decode = nn.Sequential(nn.Linear(24, 8 * 16), nn.ReLU(), nn.Unflatten(1, (8, 4, 4)))
        self.up = nn.ConvTranspose2d(8, WIDTH, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.decode(self.encode(x)))


class WholeMapNorm(nn.Module):
    """Normalises whole maps by ``nn.LayerNorm`` with three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(WIDTH, 24, 3, padding=1), conv(24, WIDTH)
        self.norm = nn.LayerNorm([24, 8, 8])

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.norm(self.first(x))))


class FunctionalDepthwise(nn.Module):
    """Depthwise filters held as a parameter, with the number of groups from the map."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = conv(WIDTH, 24), conv(24, WIDTH)
        self.kernel = nn.Parameter(torch.randn(24, 1, 3, 3) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(F.conv2d(x, self.kernel, padding=1, groups=x.shape[1]))


class GramHead(nn.Module):
    """Classifies by the products of all channels, flattened by their number in the code (style features)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 32), conv(32, 8))
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        b, c, h, w = x.size()
        features = x.view(b, c, h * w)
        gram = features.bmm(features.transpose(1, 2)) / (h * w)
        return self.head(gram.view(b, c * c))


class EarlyExit(nn.Module):
    """Leaves by a first classifier where that is sure of every image (BranchyNet)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.stem, self.more = conv(channels, WIDTH, stride=2), conv(WIDTH, 24)
        self.early, self.late = nn.Linear(WIDTH, classes), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        early = self.early(x.mean((2, 3)))
        if not self.training and early.softmax(1).amax(1).min() > 0.99:
            return early
        return self.late(self.more(x).mean((2, 3)))


class RolledChannels(nn.Module):
    """Rolls a channel group and the places of another (S2-MLP, AS-MLP)."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after, self.back = conv(WIDTH, 24, 1), conv(24, 24, 1), conv(24, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.chunk(self.before(x), 3, 1)
        shifted = [torch.roll(part, shift, 2) for part, shift in zip(parts, (-1, 0, 1), strict=True)]
        return self.back(torch.roll(self.after(torch.cat(shifted, 1)), 1, 1))


class ReversibleBlock(nn.Module):
    """Two streams that add functions of each other (RevNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = conv(WIDTH // 2, WIDTH // 2), conv(WIDTH // 2, WIDTH // 2)
        self.after = nn.Sequential(conv(WIDTH, 32), conv(32, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.chunk(x, 2, dim=1)
        first = first + self.f(second)
        second = second + self.g(first)
        return self.after(torch.cat((first, second), dim=1))


class Highway(nn.Module):
    """Gates between a layer and its input, in a ModuleList (highway networks)."""

    def __init__(self) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2))
        self.gates = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            share = torch.sigmoid(gate(x))
            x = share * F.relu(transform(x)) + (1 - share) * x
        return x


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "kan": Kan,
    "non_local": framed(NonLocal),
    "involution": framed(Involution),
    "coordinates": framed(CoordConv),
    "octave": framed(Octaves),
    "atrous_pyramid": framed(Atrous),
    "spatial_pyramid": SpatialPyramid,
    "star": framed(Star),
    "hidden_state": HiddenState,
    "mixture_of_experts": tokens(MixtureOfExperts),
    "nested_outputs": framed(Nested),
    "unflatten": framed(Unflattened),
    "whole_map_norm": framed(WholeMapNorm),
    "functional_depthwise": framed(FunctionalDepthwise),
    "gram_head": GramHead,
    "early_exit": EarlyExit,
    "rolled_channels": framed(RolledChannels),
    "reversible": framed(ReversibleBlock),
    "highway": framed(Highway),
}
