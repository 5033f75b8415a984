"""Networks that work on sequences: tokens with attention and mixers, recurrent layers, tables."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo.parts.frames import WIDTH, Expression, Tokens, conv, framed, tokens


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


def _encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.1, batch_first=True)


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


class Queries(nn.Module):
    """Pools tokens by attention of learned queries."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(4, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 2, kdim=WIDTH, vdim=WIDTH, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.queries.expand(x.shape[0], -1, -1)
        return self.norm(queries + self.attention(queries, x, x)[0])


class EinsumAttention(nn.Module):
    """Attention written with einsum, with separate layers for query, key and value and a learned bias."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.project = nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.zeros(2, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        query, key, value = (layer(x).view(n, t, 2, -1) for layer in (self.query, self.key, self.value))
        scores = torch.einsum("nqhc,nkhc->nhqk", query, key) / query.shape[-1] ** 0.5 + self.bias
        mixed = torch.einsum("nhqk,nkhc->nqhc", scores.softmax(-1), value)
        return x + self.project(mixed.reshape(n, t, -1))


class LinearAttention(nn.Module):
    """Attention without softmax over positions, and a convolution over the tokens as a map."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.local = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        side = int(t**0.5)
        query, key, value = self.qkv(x).chunk(3, -1)
        mixed = F.elu(query) @ (F.softmax(key, 1).transpose(1, 2) @ value)
        local = self.local(value.transpose(1, 2).reshape(n, c, side, side)).flatten(2).transpose(1, 2)
        return x + self.project(mixed + local)


class Mixer(nn.Module):
    """Mixes the places of each channel, then the channels of each place (MLP-Mixer)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.places = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.channels = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.places(self.first(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.second(x))


class Recurrent(nn.Module):
    """Reads rows in both directions with a GRU of two layers and hands over its last state."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = conv(channels, WIDTH, stride=2)
        self.gru = nn.GRU(WIDTH, 12, num_layers=2, bidirectional=True, dropout=0.1, batch_first=True)
        self.head = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.gru(self.conv(x).mean(3).permute(0, 2, 1))
        return self.head(torch.cat([state[-2], state[-1]], dim=1))


class Cells(nn.Module):
    """Steps an LSTM cell over the columns."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = conv(channels, WIDTH, stride=2)
        self.cell = nn.LSTMCell(WIDTH, 20)
        self.head = nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean(2)
        hidden, memory = x.new_zeros(x.shape[0], 20), x.new_zeros(x.shape[0], 20)
        for column in x.unbind(2):
            hidden, memory = self.cell(column, (hidden, memory))
        return self.head(hidden)


class Levels(nn.Module):
    """Looks the grey levels of the pixels up in an embedding."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 12)
        self.conv = nn.Sequential(conv(12, WIDTH, stride=2), conv(WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        levels = ((x.mean(1).clamp(-1, 1) + 1) * 3.5).round().long()
        return self.head(self.conv(self.table(levels).permute(0, 3, 1, 2)).mean((2, 3)))


class Fourier(nn.Module):
    """Multiplies the spectrum of the maps by learned complex numbers (GFNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)
        self.filter = nn.Parameter(0.1 * torch.randn(WIDTH, 8, 5, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        spectrum = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.filter)
        return self.last(torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho"))


class Encoder(nn.Module):
    """torch's encoder of two layers, norm first, with learned positions and a class token."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, WIDTH, 4, 4)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 17, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions[:, : x.shape[1] + 1]
        return self.head(self.encoder(x)[:, 0])


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "norm_over_tokens": tokens(_norm_over_tokens),
    "norm_of_token_axis": norm_of_token_axis,
    "encoder_layer": tokens(_encoder),
    "multihead_attention": tokens(_attention),
    "fused_attention": tokens(FusedAttention),
    "swiglu": tokens(SwiGlu),
    "layer_norm": tokens(lambda: nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())),
    "lstm_head": Rows,
    "patch_table": PatchTable,
    "no_bias": lambda classes, channels, image_size: Tokens(classes, channels, SwiGlu(), bias=False),
    "queries": tokens(Queries),
    "einsum_attention": tokens(EinsumAttention),
    "linear_attention": tokens(LinearAttention),
    "mixer": tokens(Mixer),
    "gru": Recurrent,
    "lstm_cell": Cells,
    "grey_levels": Levels,
    "fourier": framed(Fourier),
    "encoder": Encoder,
}
