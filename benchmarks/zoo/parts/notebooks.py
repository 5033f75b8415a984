"""Networks as people bring them from notebooks, competitions and course work."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub

from benchmarks.zoo.parts.frames import MIDDLE, WIDTH, conv, framed, tokens


class SpectrogramTagger(nn.Module):
    """Convolutions over a spectrogram, recurrent along time, pooled by learned attention over the frames."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(channels, 8), nn.MaxPool2d((2, 1)), conv(8, WIDTH), nn.MaxPool2d(2))
        self.rnn = nn.GRU(WIDTH * (image_size // 4), 12, batch_first=True, bidirectional=True)
        self.att, self.cla = nn.Linear(24, classes), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        b, c, f, t = x.size()
        x, _ = self.rnn(x.permute(0, 3, 1, 2).contiguous().view(b, t, c * f))
        norm_att = torch.softmax(torch.tanh(self.att(x)), dim=1)
        return (norm_att * torch.sigmoid(self.cla(x))).sum(dim=1)


class AttentionUNet(nn.Module):
    """A segmentation network with gated skips that was given a classifier over its map."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.enc1, self.enc2, self.bottom = conv(channels, 8), conv(8, 16), conv(16, 24)
        self.up2, self.up1 = nn.ConvTranspose2d(24, 16, 2, stride=2), nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.w_g, self.w_x, self.psi = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 1, 1)
        self.dec2, self.dec1 = conv(32, 16), conv(16, 8)
        self.side, self.out = nn.Conv2d(16, classes, 1), nn.Conv2d(8, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.enc1(x)
        e2 = self.enc2(F.max_pool2d(e1, 2))
        g = self.up2(self.bottom(F.max_pool2d(e2, 2)))
        e2 = e2 * torch.sigmoid(self.psi(F.relu(self.w_g(g) + self.w_x(e2), inplace=True)))
        d2 = self.dec2(torch.cat((g, e2), 1))
        d1 = self.dec1(torch.cat((self.up1(d2), e1), 1))
        side = F.interpolate(self.side(d2), size=d1.shape[-2:], mode="bilinear", align_corners=False)
        return (self.out(d1) + side).flatten(2).mean(-1)


class NetVlad(nn.Module):
    """Soft assignment of places to clusters, and the residuals of each (NetVLAD)."""

    def __init__(self, classes: int, channels: int, image_size: int, clusters: int = 4) -> None:
        super().__init__()
        self.backbone, self.clusters = nn.Sequential(conv(channels, 12, stride=2), conv(12, WIDTH)), clusters
        self.assign = nn.Conv2d(WIDTH, clusters, kernel_size=1)
        self.centroids = nn.Parameter(torch.rand(clusters, WIDTH))
        self.fc = nn.Linear(clusters * WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(self.backbone(x), p=2, dim=1)
        n, c = x.shape[:2]
        soft = F.softmax(self.assign(x).view(n, self.clusters, -1), dim=1)
        flat = x.view(n, c, -1)
        vlad = torch.einsum("nkp,ncp->nkc", soft, flat) - soft.sum(-1, keepdim=True) * self.centroids
        vlad = F.normalize(vlad, p=2, dim=2).reshape(n, -1)
        return self.fc(F.normalize(vlad, p=2, dim=1))


class Hopfield(nn.Module):
    """Retrieves from stored patterns by repeated softmax (modern Hopfield network)."""

    def __init__(self, patterns: int = 10, hidden: int = 12, steps: int = 2) -> None:
        super().__init__()
        self.query, self.norm, self.steps = nn.Linear(WIDTH, hidden), nn.LayerNorm(hidden), steps
        self.keys, self.values = nn.Parameter(torch.randn(patterns, hidden)), nn.Parameter(torch.randn(patterns, WIDTH))
        self.beta = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        state = self.norm(self.query(x))
        for _ in range(self.steps):
            state = torch.softmax(self.beta * state @ self.keys.t(), dim=-1) @ self.keys
        return x + torch.softmax(self.beta * state @ self.keys.t(), dim=-1) @ self.values


class ComparedHalves(nn.Module):
    """One trunk sees both halves of a picture; the head sees their distance and product."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(conv(channels, 12), conv(12, WIDTH, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.embed = nn.Linear(WIDTH, 12)
        self.head = nn.Sequential(nn.Linear(36, 20), nn.ELU(), nn.Linear(20, classes))

    def forward(self, x: Tensor) -> Tensor:
        left, right = (self.embed(self.trunk(half)) for half in torch.chunk(x, 2, dim=-1))
        return self.head(torch.cat([torch.abs(left - right), left * right, (left + right) / 2], dim=1))


class MultiSampleDropout(nn.Module):
    """Mean and maximum of each map, and the mean of one classifier under several dropouts."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24))
        self.bn, self.hidden = nn.BatchNorm1d(48), nn.Linear(48, 20)
        self.dropouts = nn.ModuleList([nn.Dropout(0.1 * (i + 1)) for i in range(4)])
        self.fc = nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = torch.cat([F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)], 1).flatten(1)
        x = F.relu(self.hidden(self.bn(x)))
        return sum(self.fc(dropout(x)) for dropout in self.dropouts) / len(self.dropouts)


class MergeLayer(nn.Module):
    """Adds what the sequence was given."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.orig


class SequentialEx(nn.Module):
    """A sequence whose layers find its input on their own input (fastai)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        res: Any = x
        for layer in self.layers:
            res.orig = x
            nres = layer(res)
            res.orig = None
            res = nres
        return res


class QuantizableBlock(nn.Module):
    """A residual block written for torch's own quantization."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv1, self.conv2 = (
            conv(WIDTH, 24),
            nn.Sequential(nn.Conv2d(24, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH)),
        )
        self.add_relu, self.joined = FloatFunctional(), FloatFunctional()
        self.last = conv(2 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y = self.add_relu.add_relu(self.conv2(self.conv1(x)), x)
        return self.dequant(self.last(self.joined.cat([x, y], dim=1)))


class _LayerNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        _, c, _, _ = x.size()
        mu = x.mean(1, keepdim=True)
        var = (x - mu).pow(2).mean(1, keepdim=True)
        y = (x - mu) / (var + eps).sqrt()
        ctx.save_for_backward(y, var, weight)
        return weight.view(1, c, 1, 1) * y + bias.view(1, c, 1, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        y, var, weight = ctx.saved_tensors
        g = grad * weight.view(1, -1, 1, 1)
        gx = (g - y * (g * y).mean(1, keepdim=True) - g.mean(1, keepdim=True)) / torch.sqrt(var + 1e-6)
        return gx, (grad * y).sum((3, 2, 0)), grad.sum((3, 2, 0)), None


class LayerNorm2d(nn.Module):
    """A layer norm over the channels with a gradient of its own."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)))
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return _LayerNormFunction.apply(x, self.weight, self.bias, self.eps)


class SimpleGateBlock(nn.Module):
    """Products of halves in place of activations, and scales that begin with zero (NAFNet)."""

    def __init__(self, c: int = WIDTH) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm2d(c), LayerNorm2d(c)
        self.conv1, self.conv2 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.conv3, self.conv4, self.conv5 = nn.Conv2d(c, c, 1), nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
        self.beta = nn.Parameter(torch.zeros((1, c, 1, 1)), requires_grad=True)
        self.gamma = nn.Parameter(torch.zeros((1, c, 1, 1)), requires_grad=True)

    def forward(self, inp: Tensor) -> Tensor:
        x1, x2 = self.conv2(self.conv1(self.norm1(inp))).chunk(2, dim=1)
        x = x1 * x2
        y = inp + self.conv3(x * self.sca(x)) * self.beta
        x1, x2 = self.conv4(self.norm2(y)).chunk(2, dim=1)
        return y + self.conv5(x1 * x2) * self.gamma


class InceptionNext(nn.Module):
    """A part of the channels in depthwise bands, the rest as they are, split by numbers of channels (InceptionNeXt)."""

    def __init__(self, dim: int = WIDTH, ratio: float = 0.25) -> None:
        super().__init__()
        gc = int(dim * ratio)
        self.first = nn.Conv2d(dim, dim, 1)
        self.dwconv_hw = nn.Conv2d(gc, gc, 3, padding=1, groups=gc)
        self.dwconv_w = nn.Conv2d(gc, gc, (1, 5), padding=(0, 2), groups=gc)
        self.split_indexes = (dim - 2 * gc, gc, gc)
        self.norm, self.fc1, self.fc2 = nn.BatchNorm2d(dim), nn.Conv2d(dim, 40, 1), nn.Conv2d(40, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        x_id, x_hw, x_w = torch.split(y, self.split_indexes, dim=1)
        y = torch.cat((x_id, self.dwconv_hw(x_hw), self.dwconv_w(x_w)), dim=1)
        return x + self.fc2(F.gelu(self.fc1(self.norm(y))))


class MixConv(nn.Module):
    """Unequal parts of the channels under kernels of several sizes (MixNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.parts = conv(WIDTH, 30, 1), [14, 10, 6]
        self.convs = nn.ModuleList(
            nn.Conv2d(c, c, k, padding=k // 2, groups=c) for c, k in zip(self.parts, (3, 5, 7), strict=True)
        )
        self.project = conv(30, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(self.expand(x), self.parts, 1)
        return x + self.project(torch.cat([layer(part) for layer, part in zip(self.convs, parts, strict=True)], 1))


class Equilibrium(nn.Module):
    """Iterates one layer from a state of zeros until it hardly changes (deep equilibrium)."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.Conv2d(WIDTH, WIDTH, 1)
        self.norm = nn.GroupNorm(4, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        z, u = torch.zeros_like(x), self.u(x)
        for _ in range(4):
            z = torch.tanh(self.norm(0.5 * self.w(z) + u))
        return z


class Hypercolumns(nn.Module):
    """All stages, resized to the first and read together."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(
            {"s1": conv(channels, 8), "s2": conv(8, 12, stride=2), "s3": conv(12, 20, stride=2)}
        )
        self.fuse = nn.Sequential(nn.Dropout2d(0.2), conv(40, WIDTH, 1))
        self.logit = nn.Conv2d(WIDTH, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: dict[str, Tensor] = {}
        for name, stage in self.stages.items():
            x = found[name] = stage(x)
        size = found["s1"].shape[2:]
        ups = [F.interpolate(f, size=size, mode="bilinear", align_corners=True) for f in found.values()]
        return F.adaptive_avg_pool2d(self.logit(self.fuse(torch.cat(ups, 1))), 1).squeeze(-1).squeeze(-1)


class HardConcrete(nn.Module):
    """A gate of each channel that is cut off at zero and one (L0 regularisation)."""

    def __init__(self, n: int = WIDTH) -> None:
        super().__init__()
        self.before, self.after = conv(WIDTH, 20), conv(20, n)
        self.log_alpha, self.scores = nn.Parameter(torch.randn(20)), nn.Parameter(torch.randn(1, n, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            u = torch.rand_like(self.log_alpha).clamp(1e-6, 1 - 1e-6)
            s = torch.sigmoid((u.log() - (1 - u).log() + self.log_alpha) / 0.66)
        else:
            s = torch.sigmoid(self.log_alpha)
        z = (s * 1.2 - 0.1).clamp(0, 1)
        x = self.before(x) * z[None, :, None, None]
        soft = torch.sigmoid(self.scores)
        hard = (soft > 0.5).float()
        return self.after(x) * (hard - soft.detach() + soft)


def compiled() -> nn.Module:
    """Return a sequence with a part that torch compiles."""
    return nn.Sequential(torch.compile(nn.Sequential(MIDDLE(), MIDDLE()), backend="eager"), MIDDLE())


class ZeroShotHead(nn.Module):
    """Cosine similarity with embeddings of the classes that another network made, under a learned temperature."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.visual = nn.Sequential(
            conv(channels, WIDTH, stride=2), conv(WIDTH, 24), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.projection = nn.Parameter(24**-0.5 * torch.randn(24, 12))
        self.register_buffer("text_features", F.normalize(torch.randn(classes, 12), dim=-1))
        self.logit_scale = nn.Parameter(torch.ones([]) * 2.6)

    def forward(self, x: Tensor) -> Tensor:
        image = self.visual(x) @ self.projection
        image = image / image.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * image @ self.text_features.t()


class TestTimeFlips(nn.Module):
    """The mean over a picture and its mirror image, whose features are also joined."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.net = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 20))
        self.mix, self.fc = conv(40, 20, 1), nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        batch = torch.cat([x, x.flip(-1)], dim=0)
        one, other = self.net(batch).chunk(2, dim=0)
        joined = self.mix(torch.cat([one, other.flip(-1)], 1))
        return (self.fc(one.mean((-2, -1))) + self.fc(joined.mean((-2, -1)))) / 2


class FunctionalNorms(nn.Module):
    """Batch norms by function, with tensors in dictionaries of parameters and buffers of its own."""

    def __init__(self, c: int = WIDTH) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(c, 20, 3, padding=1, bias=False), nn.Conv2d(20, c, 3, padding=1, bias=False)
        self.p = nn.ParameterDict(
            {"g1": torch.ones(20), "b1": torch.zeros(20), "g2": torch.ones(c), "b2": torch.zeros(c)}
        )
        for key, n in (("1", 20), ("2", c)):
            self.register_buffer("mean" + key, torch.zeros(n))
            self.register_buffer("var" + key, torch.ones(n))

    def norm(self, x: Tensor, key: str) -> Tensor:
        mean, var = getattr(self, "mean" + key), getattr(self, "var" + key)
        return F.batch_norm(x, mean, var, self.p["g" + key], self.p["b" + key], self.training, 0.1, 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv2(F.relu(self.norm(self.conv1(x), "1"))), "2") + x)


class ConcurrentAttention(nn.Module):
    """The larger of a gate by channel and a gate by place (scSE), then a bottleneck gate that adds both (BAM)."""

    def __init__(self, c: int = WIDTH) -> None:
        super().__init__()
        self.body = conv(WIDTH, c)
        self.cse = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c // 2, 1), nn.ReLU(), nn.Conv2d(c // 2, c, 1))
        self.sse = nn.Conv2d(c, 1, 1)
        self.gate_c = nn.Sequential(nn.Linear(c, c // 4), nn.BatchNorm1d(c // 4), nn.ReLU(), nn.Linear(c // 4, c))
        self.gate_s = nn.Sequential(
            conv(c, c // 4, 1), conv(c // 4, c // 4, padding=4, dilation=4), nn.Conv2d(c // 4, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = torch.max(x * torch.sigmoid(self.cse(x)), x * torch.sigmoid(self.sse(x)))
        pooled = F.avg_pool2d(x, x.size(2), stride=x.size(2)).view(x.size(0), -1)
        channel = self.gate_c(pooled).unsqueeze(2).unsqueeze(3).expand_as(x)
        return (1 + torch.sigmoid(channel + self.gate_s(x).expand_as(x))) * x


class LocalAttention(nn.Module):
    """Each place attends to its neighbours, heads apart, with embeddings of rows and columns (SASA)."""

    def __init__(self, c: int = WIDTH, heads: int = 4, k: int = 3) -> None:
        super().__init__()
        self.heads, self.k, self.dim = heads, k, c // heads
        self.q, self.kv, self.proj = nn.Conv2d(c, c, 1), nn.Conv2d(c, 2 * c, 1, bias=False), conv(c, c, 1)
        self.rel = nn.Parameter(torch.randn(1, 1, self.dim, k * k, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        keys, values = self.kv(x).chunk(2, 1)
        q = self.q(x).view(b, self.heads, self.dim, 1, h * w)
        keys, values = (
            F.unfold(part, self.k, padding=self.k // 2).view(b, self.heads, self.dim, self.k**2, h * w)
            for part in (keys, values)
        )
        weights = (q * (keys + self.rel)).sum(2, keepdim=True).softmax(dim=3)
        return self.proj((weights * values).sum(3).reshape(b, c, h, w))


class ScalarMix(nn.Module):
    """A weighted mean of all layers under learned scalars, and a scale of each layer (ELMo, CaiT)."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))
            for _ in range(depth)
        )
        self.scales = nn.ParameterList([nn.Parameter(0.1 * torch.ones(WIDTH)) for _ in range(depth)])
        self.scalars, self.gamma = nn.Parameter(torch.zeros(depth + 1)), nn.Parameter(torch.tensor([1.0]))

    def forward(self, x: Tensor) -> Tensor:
        layers = [x]
        for block, scale in zip(self.blocks, self.scales, strict=True):
            layers.append(layers[-1] + scale * block(layers[-1]))
        weights = torch.softmax(self.scalars, dim=0)
        return self.gamma * torch.stack(layers, dim=0).mul(weights.view(-1, 1, 1, 1)).sum(dim=0)


class ExchangingBranches(nn.Module):
    """Two resolutions that exchange their maps twice, held in nested lists and dictionaries (HRNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = conv(WIDTH, 24, stride=2)
        self.stages = nn.ModuleList(
            nn.ModuleDict(
                {
                    "branches": nn.ModuleList([conv(WIDTH, WIDTH), conv(24, 24)]),
                    "fuse": nn.ModuleDict(
                        {
                            "01": nn.Sequential(nn.Conv2d(WIDTH, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24)),
                            "10": nn.Sequential(
                                nn.Conv2d(24, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.Upsample(scale_factor=2)
                            ),
                        }
                    ),
                }
            )
            for _ in range(2)
        )
        self.last = conv(WIDTH + 24, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x, self.down(x)]
        for stage in self.stages:
            maps = [branch(each) for branch, each in zip(stage["branches"], maps, strict=True)]
            high, low = maps
            maps = [F.relu(high + stage["fuse"]["10"](low)), F.relu(low + stage["fuse"]["01"](high))]
        return self.last(torch.cat([maps[0], F.interpolate(maps[1], scale_factor=2, mode="nearest")], 1))


class SelfNormalizing(nn.Module):
    """SELU with alpha dropout, weights scaled on the way, and a gate of a power of the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(WIDTH, 24, 3, padding=1), nn.Conv2d(24, WIDTH, 3, padding=1)
        self.drop, self.p = nn.AlphaDropout(0.1), nn.Parameter(torch.ones(1) * 3)
        self.alpha = nn.Parameter(torch.full((24, 1, 1), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        y = F.selu(self.a(x))
        y = torch.where(y > 0, y, self.alpha * y)
        pooled = F.avg_pool2d(y.clamp(min=1e-6).pow(self.p), (y.size(-2), y.size(-1))).pow(1.0 / self.p)
        return F.selu(self.b(self.drop(y * pooled / (1 + pooled))))


class GaborFront(nn.Module):
    """Fixed filters in a buffer, then a depthwise separable net whose blocks are made by a table."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.register_buffer("gabor", torch.randn(9, channels, 5, 5))
        cfg: list[Any] = [16, (24, 2), 24, (32, 2)]
        layers: list[nn.Module] = [conv(9, 16, 1)]
        cin = 16
        for entry in cfg:
            cout, stride = (entry, 1) if isinstance(entry, int) else entry
            layers += [conv(cin, cin, stride=stride, groups=cin), conv(cin, cout, 1)]
            cin = cout
        self.layers, self.linear = nn.Sequential(*layers), nn.Linear(cin, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(torch.abs(F.conv2d(x, self.gabor, padding=2)))
        x = F.avg_pool2d(x, x.shape[-1])
        return self.linear(x.view(x.size(0), -1))


class TokenMixerPool(nn.Module):
    """Pooling in place of attention, norms of one group, layer scales of maps (PoolFormer)."""

    def __init__(self, dim: int = WIDTH) -> None:
        super().__init__()
        self.norm1, self.norm2, self.pool = nn.GroupNorm(1, dim), nn.GroupNorm(1, dim), nn.AvgPool2d(3, 1, 1)
        self.mlp = nn.Sequential(nn.Conv2d(dim, 40, 1), nn.GELU(), nn.Conv2d(40, dim, 1))
        self.layer_scale_1, self.layer_scale_2 = (nn.Parameter(1e-5 * torch.ones(dim)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.layer_scale_1.unsqueeze(-1).unsqueeze(-1) * (self.pool(y) - y)
        return x + self.layer_scale_2.unsqueeze(-1).unsqueeze(-1) * self.mlp(self.norm2(x))


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "spectrogram_tagger": SpectrogramTagger,
    "attention_unet": AttentionUNet,
    "netvlad_of_places": NetVlad,
    "hopfield": tokens(Hopfield),
    "compared_halves": ComparedHalves,
    "multi_sample_dropout": MultiSampleDropout,
    "merge_layer": framed(lambda: nn.Sequential(SequentialEx(MIDDLE(), MIDDLE(), MergeLayer(), nn.ReLU()), MIDDLE())),
    "quantizable": framed(QuantizableBlock),
    "simple_gate_blocks": framed(lambda: nn.Sequential(SimpleGateBlock(), SimpleGateBlock())),
    "inception_next": framed(InceptionNext),
    "mix_conv": framed(MixConv),
    "equilibrium": framed(Equilibrium),
    "hypercolumns": Hypercolumns,
    "hard_concrete": framed(HardConcrete),
    "compiled": framed(compiled),
    "zero_shot_head": ZeroShotHead,
    "test_time_flips": TestTimeFlips,
    "functional_norms": framed(FunctionalNorms),
    "concurrent_attention": framed(ConcurrentAttention),
    "local_attention": framed(LocalAttention),
    "scalar_mix": tokens(ScalarMix),
    "exchanging_branches": framed(ExchangingBranches),
    "self_normalizing": framed(SelfNormalizing),
    "gabor_front": GaborFront,
    "token_mixer_pool": framed(TokenMixerPool),
}
