"""Networks as users write them: numbers in the code, attentions of tutorials, layers that compute their weights."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo.parts.frames import WIDTH, conv, framed, tokens


class FlattenByNumber(nn.Module):
    """LeNet as torch's tutorial writes it: ``view`` with the number of features in the code."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 12, 5, padding=2), nn.Conv2d(12, 16, 5, padding=2)
        self.pool = nn.MaxPool2d(2)
        self.fc1, self.fc2 = nn.Linear(16 * 4 * 4, 32), nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 4 * 4)
        return self.fc2(F.relu(self.fc1(x)))


class CountedFeatures(nn.Module):
    """Flattens by a product that a method computes from the map's sizes."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24, stride=2))
        self.head = nn.Linear(24 * (image_size // 4) ** 2, classes)

    def _features(self, x: Tensor) -> int:
        count = 1
        for size in x.size()[1:]:
            count *= size
        return count

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head(x.view(-1, self._features(x)))


class CausalAttention(nn.Module):
    """nanoGPT's block: splits by the width it holds, views by the batch's sizes, masks by a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.n_embd, self.n_head = WIDTH, 2
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.c_fc, self.c_out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.register_buffer("bias", torch.tril(torch.ones(64, 64)).view(1, 1, 64, 64))

    def _attend(self, x: Tensor) -> Tensor:
        images, length, width = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(images, length, self.n_head, width // self.n_head).transpose(1, 2)
        q = q.view(images, length, self.n_head, width // self.n_head).transpose(1, 2)
        v = v.view(images, length, self.n_head, width // self.n_head).transpose(1, 2)
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        scores = scores.masked_fill(self.bias[:, :, :length, :length] == 0, float("-inf"))
        return self.c_proj((F.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous().view(images, length, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.ln_1(x))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x))))


class LiteralHeads(nn.Module):
    """Attention whose shapes are numbers in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.project = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 48), nn.Linear(16, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 2, 8).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(-1)
        x = x + self.project((weights @ v).transpose(1, 2).reshape(n, t, 16))
        return x + self.mlp(x)


class CrossAttention(nn.Module):
    """Two branches, of which one reads the other by ``nn.MultiheadAttention`` with widths of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Linear(WIDTH, 24), nn.Linear(WIDTH, 32)
        self.attend = nn.MultiheadAttention(24, 3, kdim=32, vdim=32, batch_first=True)
        self.back = nn.Linear(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.coarse(F.avg_pool1d(x.transpose(1, 2), 4).transpose(1, 2))
        fine = F.relu(self.fine(x))
        return x + self.back(fine + self.attend(fine, coarse, coarse)[0])


def _decoder() -> nn.Module:
    class Decoder(nn.Module):
        """torch's decoder layer: self attention, cross attention, MLP."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerDecoderLayer(WIDTH, 2, 48, batch_first=True)
            self.memory = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, self.memory(x.flip(1)))

    return Decoder()


class OwnCrossAttention(nn.Module):
    """Attention between two sets of tokens by layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.queries = 2, nn.Parameter(0.1 * torch.randn(1, 5, WIDTH))
        self.to_q, self.to_kv, self.to_out = nn.Linear(WIDTH, 32), nn.Linear(WIDTH, 64), nn.Linear(32, WIDTH)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 48), nn.GELU(), nn.Linear(48, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        queries = self.queries.expand(x.shape[0], -1, -1)
        q, (k, v) = self.to_q(queries), self.to_kv(x).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = queries + self.to_out(mixed)
        return x + self.mlp(x)


class ScaledStdConv2d(nn.Conv2d):
    """timm's: weights standardised by ``F.batch_norm``, with a gain of each filter."""

    def __init__(self, inputs: int, outputs: int, kernel: int, **options: int) -> None:
        super().__init__(inputs, outputs, kernel, **options)
        self.gain = nn.Parameter(torch.full((outputs, 1, 1, 1), 1.0))
        self.scale, self.eps = self.weight[0].numel() ** -0.5, 1e-6

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1),
            None,
            None,
            weight=(self.gain * self.scale).view(-1),
            training=True,
            momentum=0.0,
            eps=self.eps,
        ).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class EqualLinear(nn.Module):
    """A layer whose weights are scaled as it runs (StyleGAN)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class EqualConv(nn.Conv2d):
    """A convolution with an equalised learning rate."""

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.in_channels * self.kernel_size[0] ** 2) ** -0.5
        return F.conv2d(x, self.weight * scale, self.bias, padding=self.padding)


class MaskedConv(nn.Conv2d):
    """PixelCNN's: sees the places above and to the left."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes, padding=1)
        mask = torch.ones_like(self.weight)
        mask[:, :, 1, 2:], mask[:, :, 2:] = 0, 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=1)


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


class BinaryConv(nn.Conv2d):
    """Binary weights by a straight-through estimator (XNOR-Net)."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, _Sign.apply(self.weight) * scale, self.bias, padding=self.padding)


class _SwishFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        sigmoid = torch.sigmoid(x)
        return grad * (sigmoid * (1 + x * (1 - sigmoid)))


class MemoryEfficientSwish(nn.Module):
    """efficientnet_pytorch's activation: a Function with a backward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return _SwishFunction.apply(x)


@torch.jit.script
def _mish(x: Tensor) -> Tensor:
    return x * torch.tanh(F.softplus(x))


class ScriptedActivation(nn.Module):
    """An activation that is a scripted function, as timm's old ones."""

    def forward(self, x: Tensor) -> Tensor:
        return _mish(x)


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "flatten_by_number": FlattenByNumber,
    "counted_features": CountedFeatures,
    "causal_attention": tokens(CausalAttention),
    "literal_heads": tokens(LiteralHeads),
    "cross_attention": tokens(CrossAttention),
    "decoder_layer": tokens(_decoder),
    "own_cross_attention": tokens(OwnCrossAttention),
    "scaled_standardized": framed(
        lambda: nn.Sequential(ScaledStdConv2d(WIDTH, 24, 3, padding=1), nn.ReLU(), ScaledStdConv2d(24, WIDTH, 1))
    ),
    "equal_rates": framed(
        lambda: nn.Sequential(EqualConv(WIDTH, 24, 3, padding=1), nn.ReLU(), EqualConv(24, WIDTH, 3, padding=1))
    ),
    "masked_convolution": framed(lambda: nn.Sequential(MaskedConv(WIDTH, 24, 3), nn.ReLU(), MaskedConv(24, WIDTH, 3))),
    "binary_weights": framed(
        lambda: nn.Sequential(BinaryConv(WIDTH, 24, 3, padding=1), nn.ReLU(), conv(24, WIDTH), conv(WIDTH, WIDTH))
    ),
    "own_function": framed(
        lambda: nn.Sequential(nn.Conv2d(WIDTH, 24, 3, padding=1), MemoryEfficientSwish(), conv(24, WIDTH))
    ),
    "scripted_activation": framed(
        lambda: nn.Sequential(nn.Conv2d(WIDTH, 24, 3, padding=1), ScriptedActivation(), conv(24, WIDTH))
    ),
    "equal_linear": framed(
        lambda: nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            EqualLinear(WIDTH, 32),
            nn.ReLU(),
            EqualLinear(32, WIDTH),
            nn.Unflatten(1, (WIDTH, 1, 1)),
        )
    ),
}
