"""Networks that public reports of pruning, quantization and export tools name as trouble."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo.parts.frames import WIDTH, Tokens, conv, framed, tokens


class Rotary(nn.Module):
    """Attention with rotary positions and fewer heads for key and value than for the query, then a SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.query, self.key, self.value = nn.Linear(WIDTH, 32), nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 16)
        self.project = nn.Linear(32, WIDTH)
        self.gate, self.up, self.down = nn.Linear(WIDTH, 48), nn.Linear(WIDTH, 48), nn.Linear(48, WIDTH)
        angles = torch.arange(16)[:, None] / 100 ** (torch.arange(4) / 4)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def _turn(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return torch.cat([first * self.cosine - second * self.sine, first * self.sine + second * self.cosine], -1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        query, key, value = (
            layer(y).unflatten(-1, (-1, 8)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        key, value = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
        mixed = F.scaled_dot_product_attention(self._turn(query), self._turn(key), value)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        y = self.second(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class ShiftedWindows(nn.Module):
    """Attention in shifted windows with a table of relative positions, then an MLP (Swin)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.project = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.table = nn.Parameter(0.1 * torch.randn(9, 2))
        places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        offsets = places[:, :, None] - places[:, None] + 1
        self.register_buffer("index", offsets[0] * 3 + offsets[1], persistent=False)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        n, count, c = x.shape
        side = int(count**0.5)
        y = torch.roll(self.norm(x).view(n, side, side, c), (-1, -1), (1, 2))
        y = y.view(n, side // 2, 2, side // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        query, key, value = self.qkv(y).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) / 8**0.5 + self.table[self.index].permute(2, 0, 1)
        y = self.project((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        y = y.view(n, side // 2, side // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, side, side, c)
        x = x + torch.roll(y, (1, 1), (1, 2)).flatten(1, 2)
        return x + self.mlp(x)


class CrossCovariance(nn.Module):
    """Attention between channels instead of places, with a learned temperature (XCiT), then an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.project = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.temperature = nn.Parameter(torch.ones(2, 1, 1))
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 4, 1)
        scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1) * self.temperature
        mixed = (scores.softmax(-1) @ value).permute(0, 3, 1, 2).flatten(2)
        x = x + self.project(mixed)
        return x + self.mlp(x)


class Latents(nn.Module):
    """A few learned tokens read all others by attention, twice by the same layer (Perceiver)."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(4, WIDTH))
        self.read = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        latents = self.latents.expand(x.shape[0], -1, -1)
        for _ in range(2):
            latents = latents + self.read(latents, x, x, need_weights=False)[0]
            latents = latents + self.mlp(latents)
        return latents


class Ghost(nn.Module):
    """Makes half of its maps by a depthwise layer from the other half (GhostNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.primary, self.cheap = conv(WIDTH, WIDTH, 1), conv(WIDTH, WIDTH, groups=WIDTH)
        self.last = conv(2 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return x + self.last(torch.cat([first, self.cheap(first)], 1))


class Reparametrized(nn.Module):
    """Sums a wide, a narrow and no convolution, each with a norm of its own (RepVGG)."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = conv(WIDTH, WIDTH)[:2], conv(WIDTH, WIDTH, 1)[:2]
        self.identity = nn.BatchNorm2d(WIDTH)
        self.last = conv(WIDTH, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.wide(x) + self.narrow(x) + self.identity(x)))


class CoordinateAttention(nn.Module):
    """Pools rows and columns, joins them for one layer and splits them again as gates."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.squeeze = conv(WIDTH, 24), conv(24, 8, 1)
        self.rows, self.columns = nn.Conv2d(8, 24, 1), nn.Conv2d(8, 24, 1)
        self.last = conv(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        height, width = x.shape[2:]
        both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], 2)
        rows, columns = self.squeeze(both).split([height, width], 2)
        return self.last(x * self.rows(rows).sigmoid() * self.columns(columns.transpose(2, 3)).sigmoid())


class Wavelet(nn.Module):
    """Sums and differences of neighbouring places, joined as channels, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = conv(WIDTH, WIDTH), conv(4 * WIDTH, 4 * WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        rows, others = x[:, :, ::2], x[:, :, 1::2]
        low, high = rows + others, rows - others
        parts = [low[..., ::2] + low[..., 1::2], low[..., ::2] - low[..., 1::2]]
        parts += [high[..., ::2] + high[..., 1::2], high[..., ::2] - high[..., 1::2]]
        return F.pixel_shuffle(self.deep(torch.cat(parts, 1)), 2)


class Capsules(nn.Module):
    """Scales every group of 8 channels to a length between 0 and 1 (capsules)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(WIDTH, 32, 3, padding=1), conv(32, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        capsules = self.first(x).unflatten(1, (-1, 8))
        squared = capsules.pow(2).sum(2, keepdim=True)
        return self.last((capsules * squared / (1 + squared) / (squared + 1e-8).sqrt()).flatten(1, 2))


class Residuals(nn.Module):
    """Assigns places softly to learned centres and sums the differences (NetVLAD)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, WIDTH))
        self.assign, self.centres = nn.Conv2d(WIDTH, 4, 1), nn.Parameter(torch.randn(4, WIDTH))
        self.head = nn.Linear(4 * WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        shares = self.assign(x).flatten(2).softmax(1)
        differences = x.flatten(2).unsqueeze(1) - self.centres[None, :, :, None]
        summed = (shares.unsqueeze(2) * differences).sum(-1)
        return self.head(F.normalize(summed, dim=2).flatten(1))


class Modulated(nn.Module):
    """Scales and shifts normalised maps by what a second path computes (FiLM, adaptive norms)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(WIDTH, 32, 3, padding=1), nn.GroupNorm(8, 32), conv(32, WIDTH)
        self.embed = nn.Sequential(nn.Linear(WIDTH, 24), nn.SiLU(), nn.Linear(24, 64))

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.embed(x.mean((2, 3)))[:, :, None, None].chunk(2, 1)
        return x + self.last(F.silu(self.norm(self.first(x)) * (1 + scale) + shift))


class Repeated(nn.Module):
    """One block three times, with a scale of its own for each time."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(conv(WIDTH, 32), conv(32, WIDTH))
        self.scales = nn.ParameterList([nn.Parameter(torch.full((WIDTH, 1, 1), 0.5)) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for scale in self.scales:
            x = x + scale * self.block(x)
        return x


class Siamese(nn.Module):
    """One encoder for the two halves of the image, joined by difference and product."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24))
        self.head = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, x: Tensor) -> Tensor:
        left, right = (self.encoder(half).mean((2, 3)) for half in x.chunk(2, 3))
        return self.head(torch.cat([(left - right).abs(), left * right], 1))


class ConvMixer(nn.Module):
    """Depthwise with a shortcut, then pointwise, each with GELU and a norm behind."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 5, padding=2, groups=WIDTH), nn.GELU(), nn.BatchNorm2d(WIDTH))
        self.point = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), nn.GELU(), nn.BatchNorm2d(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.deep(x) + x)


class GlobalContext(nn.Module):
    """Adds to every place what a softmax over places sums up, through a bottleneck with a layer norm (GCNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weigh = conv(WIDTH, 24), nn.Conv2d(24, 1, 1)
        self.change = nn.Sequential(nn.Conv2d(24, 8, 1), nn.LayerNorm([8, 1, 1]), nn.ReLU(), nn.Conv2d(8, 24, 1))
        self.last = conv(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        share = self.weigh(x).flatten(2).softmax(-1).transpose(1, 2)
        context = torch.matmul(x.flatten(2), share).unsqueeze(-1)
        return self.last(x + self.change(context))


class SpectralMixing(nn.Module):
    """Mixes places by the real part of a Fourier transform, then the channels by an MLP (FNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 48), nn.GELU(), nn.Linear(48, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x + torch.fft.fft(x, dim=1, norm="ortho").real)
        return self.second(x + self.mlp(x))


class Prompted(nn.Module):
    """Joins registers and a class token to the tokens and scales both branches (DeiT III, DINOv2)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = Tokens(classes, channels, nn.Identity())
        self.token, self.registers = nn.Parameter(torch.zeros(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 3, WIDTH))
        self.positions = nn.Parameter(0.1 * torch.randn(1, (image_size // 4) ** 2, WIDTH))
        self.norm, self.scale = nn.LayerNorm(WIDTH), nn.Parameter(1e-5 * torch.ones(WIDTH))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body.embed(x).flatten(2).transpose(1, 2) + self.positions
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.registers.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.scale * self.mlp(self.norm(x))
        return self.body.head(x[:, 0] + x[:, 4:].mean(1))


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "rotary": tokens(Rotary),
    "shifted_windows": tokens(ShiftedWindows),
    "cross_covariance": tokens(CrossCovariance),
    "latents": tokens(Latents),
    "ghost": framed(Ghost),
    "reparametrized_branches": framed(Reparametrized, 24),
    "coordinate_attention": framed(CoordinateAttention),
    "wavelet": framed(Wavelet),
    "capsules": framed(Capsules),
    "netvlad": Residuals,
    "modulated": framed(Modulated),
    "repeated": framed(Repeated),
    "siamese": Siamese,
    "convmixer": framed(ConvMixer),
    "global_context": framed(GlobalContext),
    "spectral_mixing": tokens(SpectralMixing),
    "prompted": Prompted,
}
