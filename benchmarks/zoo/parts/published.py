"""Blocks of papers and public repositories, written as their authors publish them."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FeaturePyramidNetwork

from benchmarks.zoo.parts.frames import WIDTH, conv, framed, tokens


class SelectiveScan(nn.Module):
    """Mamba's block: a gated causal convolution and a scan whose steps depend on the input."""

    def __init__(self, d_model: int = WIDTH, d_state: int = 4, d_conv: int = 3, expand: int = 2) -> None:
        super().__init__()
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner, self.dt_rank = expand * d_model, max(1, d_model // 8)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, d_state + 1).float().repeat(self.d_inner, 1)))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        inner, gate = self.in_proj(x).split(split_size=[self.d_inner, self.d_inner], dim=-1)
        inner = F.silu(self.conv1d(inner.transpose(1, 2))[:, :, :length].transpose(1, 2))
        delta, b, c = self.x_proj(inner).split(split_size=[self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.softplus(self.dt_proj(delta))
        decay = torch.exp(torch.einsum("bld,dn->bldn", delta, -torch.exp(self.A_log.float())))
        driven = torch.einsum("bld,bln,bld->bldn", delta, b, inner)
        state, outputs = torch.zeros((batch, self.d_inner, self.d_state), device=x.device), []
        for step in range(length):
            state = decay[:, step] * state + driven[:, step]
            outputs.append(torch.einsum("bdn,bn->bd", state, c[:, step, :]))
        y = torch.stack(outputs, dim=1) + inner * self.D
        return x + self.out_proj(y * F.silu(gate))


class SpatialGating(nn.Module):
    """gMLP's block: half of the channels, mixed along the tokens, gate the others."""

    def __init__(self, dim: int = WIDTH, d_ffn: int = 32, length: int = 16) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = nn.LayerNorm(dim), nn.Linear(dim, d_ffn), nn.Linear(d_ffn // 2, dim)
        self.gate_norm, self.spatial = nn.LayerNorm(d_ffn // 2), nn.Conv1d(length, length, kernel_size=1)
        nn.init.constant_(self.spatial.bias, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        u, v = F.gelu(self.proj_in(self.norm(x))).chunk(2, dim=-1)
        return self.proj_out(u * self.spatial(self.gate_norm(v))) + shortcut


class AdaptiveFourier(nn.Module):
    """AFNO: a block-diagonal complex MLP on the spectrum, with soft shrinkage."""

    def __init__(self, hidden_size: int = WIDTH, num_blocks: int = 4) -> None:
        super().__init__()
        self.hidden_size, self.num_blocks, self.block_size = hidden_size, num_blocks, hidden_size // num_blocks
        self.w1 = nn.Parameter(0.1 * torch.randn(2, num_blocks, self.block_size, self.block_size))
        self.b1 = nn.Parameter(0.1 * torch.randn(2, num_blocks, self.block_size))

    def forward(self, x: Tensor) -> Tensor:
        bias, (b, c, h, w) = x, x.shape
        x = torch.fft.rfft2(x.permute(0, 2, 3, 1), dim=(1, 2), norm="ortho")
        x = x.reshape(b, h, w // 2 + 1, self.num_blocks, self.block_size)
        real = F.relu(
            torch.einsum("...bi,bio->...bo", x.real, self.w1[0])
            - torch.einsum("...bi,bio->...bo", x.imag, self.w1[1])
            + self.b1[0]
        )
        imag = F.relu(
            torch.einsum("...bi,bio->...bo", x.imag, self.w1[0])
            + torch.einsum("...bi,bio->...bo", x.real, self.w1[1])
            + self.b1[1]
        )
        x = torch.view_as_complex(F.softshrink(torch.stack([real, imag], dim=-1), lambd=0.01))
        x = torch.fft.irfft2(x.reshape(b, h, w // 2 + 1, c), s=(h, w), dim=(1, 2), norm="ortho")
        return x.permute(0, 3, 1, 2) + bias


class Retention(nn.Module):
    """RetNet's parallel form: decays by head in place of a softmax, and a norm of each head."""

    def __init__(self, dim: int = WIDTH, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.q_proj, self.k_proj, self.v_proj, self.g_proj = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.group_norm, self.out_proj = nn.GroupNorm(heads, dim), nn.Linear(dim, dim, bias=False)
        self.register_buffer("gamma", 1 - torch.exp(torch.linspace(math.log(1 / 32), math.log(1 / 512), heads)))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (
            proj(x).view(b, t, self.heads, self.head_dim).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        place = torch.arange(t, device=x.device)
        distance = place[:, None] - place[None]
        decay = (self.gamma[:, None, None] ** distance.clamp(min=0)) * (distance >= 0)
        y = ((q @ k.transpose(-1, -2)) * self.head_dim**-0.5 * decay) @ v
        y = self.group_norm(y.transpose(1, 2).reshape(b * t, self.heads * self.head_dim)).view(b, t, -1)
        return x + self.out_proj(F.silu(self.g_proj(x)) * y)


class TimeMix(nn.Module):
    """RWKV's mixing along the tokens: a shift by one, and a running weighed mean in a loop."""

    def __init__(self, n_embd: int = WIDTH) -> None:
        super().__init__()
        self.time_shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.time_mix_k, self.time_mix_v = (nn.Parameter(torch.rand(1, 1, n_embd)) for _ in range(2))
        self.time_decay, self.time_first = nn.Parameter(torch.rand(n_embd)), nn.Parameter(torch.rand(n_embd))
        self.key, self.value, self.receptance = (nn.Linear(n_embd, 24, bias=False) for _ in range(3))
        self.decay, self.output = nn.Parameter(torch.rand(24)), nn.Linear(24, n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        shifted = self.time_shift(x)
        xk = x * self.time_mix_k + shifted * (1 - self.time_mix_k)
        xv = x * self.time_mix_v + shifted * (1 - self.time_mix_v)
        k, v, r = self.key(xk), self.value(xv), torch.sigmoid(self.receptance(x * self.time_first))
        above, below, outputs = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), []
        for t in range(x.size(1)):
            weight = torch.exp(k[:, t].clamp(max=10))
            outputs.append((above + weight * v[:, t]) / (below + weight + 1e-6))
            above, below = above * torch.exp(-self.decay) + weight * v[:, t], below * torch.exp(-self.decay) + weight
        return x + self.output(r * torch.stack(outputs, 1)) * self.time_decay


class EfficientPyramid(nn.Module):
    """ESPNet's module: dilated branches of one narrow map, summed one after the other and joined."""

    def __init__(self, n_in: int = WIDTH, n_out: int = 24) -> None:
        super().__init__()
        n = n_out // 5
        n1 = n_out - 4 * n
        self.c1 = nn.Conv2d(n_in, n, 1, bias=False)
        self.d1 = nn.Conv2d(n, n1, 3, padding=1, bias=False)
        self.d2, self.d4, self.d8, self.d16 = (
            nn.Conv2d(n, n, 3, padding=d, dilation=d, bias=False) for d in (2, 3, 4, 5)
        )
        self.bn, self.act = nn.BatchNorm2d(n_out), nn.PReLU(n_out)

    def forward(self, x: Tensor) -> Tensor:
        out = self.c1(x)
        d1, add1 = self.d1(out), self.d2(out)
        add2 = add1 + self.d4(out)
        add3 = add2 + self.d8(out)
        add4 = add3 + self.d16(out)
        return self.act(self.bn(torch.cat([d1, add1, add2, add3, add4], 1)))


class LibraryPyramid(nn.Module):
    """torchvision's pyramid over layers that its getter finds by name; all levels are pooled and joined."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        layers = OrderedDict(
            stem=conv(channels, WIDTH, stride=2), layer1=conv(WIDTH, 20), layer2=conv(20, 24, stride=2)
        )
        self.body = IntermediateLayerGetter(nn.Sequential(layers), {"layer1": "0", "layer2": "1"})
        self.fpn, self.fc = FeaturePyramidNetwork([20, 24], WIDTH), nn.Linear(2 * WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.fpn(self.body(x))
        return self.fc(torch.cat([level.mean((2, 3)) for level in levels.values()], 1))


class _Plain(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem, self.block, self.last = conv(channels, WIDTH, stride=2), conv(WIDTH, WIDTH), conv(WIDTH, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.block(x)
        x = self.last(x)
        return x.view(x.size(0), x.size(1), -1)


def graph_module(classes: int, channels: int, image_size: int) -> nn.Module:
    """A network that torch.fx has traced, sizes of its tensors included."""

    class Traced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.fc = fx.symbolic_trace(_Plain(channels)), nn.Linear(24, classes)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.features(x).mean(2))

    return Traced()


class PoolingAttention(nn.Module):
    """P2T: keys and values come from the map pooled at several ratios."""

    def __init__(self, dim: int = WIDTH, num_heads: int = 2, pool_ratios: tuple[int, ...] = (2, 4)) -> None:
        super().__init__()
        self.dim, self.num_heads, self.scale = dim, num_heads, (dim // num_heads) ** -0.5
        self.q, self.kv = nn.Sequential(nn.Linear(dim, dim)), nn.Sequential(nn.Linear(dim, 2 * dim))
        self.proj, self.norm, self.pool_ratios = nn.Linear(dim, dim), nn.LayerNorm(dim), pool_ratios
        self.d_convs = nn.ModuleList([nn.Conv2d(dim, dim, 3, padding=1, groups=dim) for _ in pool_ratios])
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        H = W = int(N**0.5)
        q = self.q(x).reshape(B, N, self.num_heads, C // self.num_heads).permute(0, 2, 1, 3)
        pools, x_ = [], x.permute(0, 2, 1).reshape(B, C, H, W)
        for ratio, layer in zip(self.pool_ratios, self.d_convs, strict=True):
            pool = F.adaptive_avg_pool2d(x_, (round(H / ratio), round(W / ratio)))
            pools.append((pool + layer(pool)).view(B, C, -1))
        pooled = self.norm(torch.cat(pools, dim=2).permute(0, 2, 1))
        kv = self.kv(pooled).reshape(B, -1, 2, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        k, v = kv[0], kv[1]
        attn = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        x = x + self.proj((attn @ v).transpose(1, 2).contiguous().reshape(B, N, C))
        return x + self.fc2(F.gelu(self.fc1(x)))


class CosineAttention(nn.Module):
    """Swin V2's attention: cosines times a learnt scale, and a bias that an MLP makes of the distances."""

    def __init__(self, dim: int = WIDTH, num_heads: int = 2, side: int = 4) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.logit_scale = nn.Parameter(torch.log(10 * torch.ones((num_heads, 1, 1))))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 32), nn.ReLU(inplace=True), nn.Linear(32, num_heads, bias=False))
        steps = torch.arange(-(side - 1), side, dtype=torch.float32)
        table = torch.stack(torch.meshgrid([steps, steps], indexing="ij")).permute(1, 2, 0).contiguous().unsqueeze(0)
        self.register_buffer("relative_coords_table", table / (side - 1), persistent=False)
        coords = torch.stack(torch.meshgrid([torch.arange(side)] * 2, indexing="ij")).flatten(1)
        relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0).contiguous() + side - 1
        self.register_buffer("index", relative[:, :, 0] * (2 * side - 1) + relative[:, :, 1], persistent=False)
        self.qkv, self.proj = nn.Linear(dim, dim * 3, bias=False), nn.Linear(dim, dim)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        B_, N, C = x.shape
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias, requires_grad=False), self.v_bias))
        qkv = F.linear(input=x, weight=self.qkv.weight, bias=bias)
        q, k, v = qkv.reshape(B_, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attn = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        attn = attn * torch.clamp(self.logit_scale, max=math.log(100.0)).exp()
        table = self.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
        bias = table[self.index.view(-1)].view(N, N, -1).permute(2, 0, 1).contiguous()
        attn = (attn + 16 * torch.sigmoid(bias).unsqueeze(0)).softmax(-1)
        x = x + self.norm1(self.proj((attn @ v).transpose(1, 2).reshape(B_, N, C)))
        return x + self.norm2(self.mlp(x))


class Outlook(nn.Module):
    """VOLO's attention: weights over the neighbours come from the place alone; unfold and fold."""

    def __init__(self, dim: int = WIDTH, num_heads: int = 2, kernel_size: int = 3) -> None:
        super().__init__()
        self.num_heads, self.kernel_size, self.scale = num_heads, kernel_size, (dim // num_heads) ** -0.5
        self.v, self.attn = nn.Linear(dim, dim, bias=False), nn.Linear(dim, kernel_size**4 * num_heads)
        self.proj, self.unfold = nn.Linear(dim, dim), nn.Unfold(kernel_size=kernel_size, padding=1)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        B, H, W, C = x.shape
        v = self.unfold(self.v(x).permute(0, 3, 1, 2))
        v = v.reshape(B, self.num_heads, C // self.num_heads, self.kernel_size * self.kernel_size, H * W)
        v = v.permute(0, 1, 4, 3, 2)
        attn = self.attn(x).reshape(B, H * W, self.num_heads, self.kernel_size**2, self.kernel_size**2)
        attn = (attn.permute(0, 2, 1, 3, 4) * self.scale).softmax(dim=-1)
        y = (attn @ v).permute(0, 1, 4, 3, 2).reshape(B, C * self.kernel_size * self.kernel_size, H * W)
        y = F.fold(y, output_size=(H, W), kernel_size=self.kernel_size, padding=1)
        x = x + self.proj(y.permute(0, 2, 3, 1))
        return (x + self.mlp(x)).permute(0, 3, 1, 2)


class RelativePositions(nn.Module):
    """BoTNet's attention: content and positions of rows and columns, heads of a width of their own."""

    def __init__(self, dim: int = WIDTH, fmap: int = 8, heads: int = 3, dim_head: int = 8) -> None:
        super().__init__()
        self.heads, self.scale = heads, dim_head**-0.5
        self.to_qkv = nn.Conv2d(dim, heads * dim_head * 3, 1, bias=False)
        self.height = nn.Parameter(torch.randn(fmap, dim_head) * self.scale)
        self.width = nn.Parameter(torch.randn(fmap, dim_head) * self.scale)
        self.out = nn.Sequential(nn.BatchNorm2d(heads * dim_head), nn.ReLU(), nn.Conv2d(heads * dim_head, dim, 1))

    def forward(self, fmap: Tensor) -> Tensor:
        heads, (b, _, h, w) = self.heads, fmap.shape
        q, k, v = self.to_qkv(fmap).chunk(3, dim=1)
        q, k, v = (t.reshape(b, heads, -1, h * w).transpose(2, 3) for t in (q, k, v))
        q = q * self.scale
        positions = (self.height.unsqueeze(1) + self.width.unsqueeze(0)).reshape(h * w, -1)
        scores = torch.einsum("bhid,bhjd->bhij", q, k) + torch.einsum("bhid,jd->bhij", q, positions)
        out = torch.einsum("bhij,bhjd->bhid", scores.softmax(dim=-1), v)
        return fmap + self.out(out.transpose(2, 3).reshape(b, -1, h, w))


class LambdaInteractions(nn.Module):
    """A lambda layer: keys over places make a linear function of every place's queries."""

    def __init__(self, dim: int = WIDTH, dim_k: int = 4, heads: int = 4, dim_u: int = 1) -> None:
        super().__init__()
        self.u, self.heads, dim_v = dim_u, heads, dim // heads
        self.to_q = nn.Conv2d(dim, dim_k * heads, 1, bias=False)
        self.to_k = nn.Conv2d(dim, dim_k * dim_u, 1, bias=False)
        self.to_v = nn.Conv2d(dim, dim_v * dim_u, 1, bias=False)
        self.norm_q, self.norm_v = nn.BatchNorm2d(dim_k * heads), nn.BatchNorm2d(dim_v * dim_u)
        self.pos_conv = nn.Conv3d(dim_u, dim_k, (1, 3, 3), padding=(0, 1, 1))
        self.after = conv(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, _, hh, ww = x.shape
        q = self.norm_q(self.to_q(x)).reshape(b, self.heads, -1, hh * ww)
        k = self.to_k(x).reshape(b, self.u, -1, hh * ww).softmax(dim=-1)
        v = self.norm_v(self.to_v(x)).reshape(b, self.u, -1, hh * ww)
        content = torch.einsum("b u k m, b u v m -> b k v", k, v)
        y_c = torch.einsum("b h k n, b k v -> b h v n", q, content)
        places = self.pos_conv(v.reshape(b, self.u, -1, hh, ww)).flatten(3)
        y_p = torch.einsum("b h k n, b k v n -> b h v n", q, places)
        return self.after((y_c + y_p).reshape(b, -1, hh, ww))


class Integrated(nn.Module):
    """Steps of an ordinary differential equation; the time is a further channel of every convolution."""

    def __init__(self, dim: int = WIDTH, hidden: int = 24) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, dim), nn.GroupNorm(4, hidden)
        self.conv1, self.conv2 = nn.Conv2d(dim + 1, hidden, 3, 1, 1), nn.Conv2d(hidden + 1, dim, 3, 1, 1)
        self.nfe = 0

    def derivative(self, t: Tensor, x: Tensor) -> Tensor:
        self.nfe += 1
        x = F.relu(self.norm1(x))
        x = self.conv1(torch.cat([torch.ones_like(x[:, :1, :, :]) * t, x], 1))
        x = F.relu(self.norm2(x))
        return self.conv2(torch.cat([torch.ones_like(x[:, :1, :, :]) * t, x], 1))

    def forward(self, x: Tensor) -> Tensor:
        self.nfe = 0
        for t in torch.linspace(0, 1, 4)[:-1]:
            x = x + self.derivative(t, x) / 3
        return x


class MultiscaleGate(nn.Module):
    """Efficient multi-scale attention: groups of channels become images of the batch."""

    def __init__(self, channels: int = WIDTH, factor: int = 4) -> None:
        super().__init__()
        self.groups = factor
        self.softmax, self.agp = nn.Softmax(-1), nn.AdaptiveAvgPool2d((1, 1))
        self.pool_h, self.pool_w = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        self.gn = nn.GroupNorm(channels // self.groups, channels // self.groups)
        self.conv1x1 = nn.Conv2d(channels // self.groups, channels // self.groups, kernel_size=1)
        self.conv3x3 = nn.Conv2d(channels // self.groups, channels // self.groups, kernel_size=3, padding=1)
        self.after = conv(channels, 24)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.size()
        group_x = x.reshape(b * self.groups, -1, h, w)
        x_h, x_w = self.pool_h(group_x), self.pool_w(group_x).permute(0, 1, 3, 2)
        x_h, x_w = torch.split(self.conv1x1(torch.cat([x_h, x_w], dim=2)), [h, w], dim=2)
        x1 = self.gn(group_x * x_h.sigmoid() * x_w.permute(0, 1, 3, 2).sigmoid())
        x2 = self.conv3x3(group_x)
        x11 = self.softmax(self.agp(x1).reshape(b * self.groups, -1, 1).permute(0, 2, 1))
        x12 = x2.reshape(b * self.groups, c // self.groups, -1)
        x21 = self.softmax(self.agp(x2).reshape(b * self.groups, -1, 1).permute(0, 2, 1))
        x22 = x1.reshape(b * self.groups, c // self.groups, -1)
        weights = (torch.matmul(x11, x12) + torch.matmul(x21, x22)).reshape(b * self.groups, 1, h, w)
        return self.after((group_x * weights.sigmoid()).reshape(b, c, h, w))


class AffineCoupling(nn.Module):
    """Glow's step: a learnt mixing of the channels, and one half that scales and shifts the other."""

    def __init__(self, channels: int = WIDTH, hidden: int = 24) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])
        self.loc, self.scale = nn.Parameter(torch.zeros(1, channels, 1, 1)), nn.Parameter(torch.ones(1, channels, 1, 1))
        self.net = nn.Sequential(conv(channels // 2, hidden), nn.Conv2d(hidden, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.scale * (x + self.loc)
        x = F.conv2d(x, self.weight.unsqueeze(2).unsqueeze(3))
        a, b = x.chunk(2, 1)
        log_s, t = self.net(a).chunk(2, 1)
        return torch.cat([a, (b + t) * torch.sigmoid(log_s + 2)], 1)


class QuasiRecurrent(nn.Module):
    """QRNN: all gates from one convolution along the tokens, then a pooling in a loop."""

    def __init__(self, input_size: int = WIDTH, hidden_size: int = 20) -> None:
        super().__init__()
        self.hidden_size, self.kernel = hidden_size, 2
        self.conv1d = nn.Conv1d(input_size, 3 * hidden_size, self.kernel)
        self.linear = nn.Linear(hidden_size, input_size)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.conv1d(F.pad(x.transpose(1, 2), (self.kernel - 1, 0))).permute(2, 0, 1)
        z, f, o = torch.split(gates, split_size_or_sections=self.hidden_size, dim=2)
        z, f, o = z.tanh(), f.sigmoid(), o.sigmoid()
        h, c = [], torch.zeros(x.size(0), self.hidden_size, device=x.device)
        for t in range(z.size(0)):
            c = f[t] * c + (1 - f[t]) * z[t]
            h.append(o[t] * c)
        return x + self.linear(torch.stack(h).transpose(0, 1))


class Chomp(nn.Module):
    """Cuts what padding added on the right."""

    def __init__(self, chomp_size: int) -> None:
        super().__init__()
        self.chomp_size = chomp_size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.chomp_size].contiguous()


class TemporalConvolution(nn.Module):
    """A TCN over the rows of an image: causal, dilated, weights normed by torch's older function."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        sizes, layers = (channels * image_size, 24, 20), []
        for level, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            for first, second in ((inputs, outputs), (outputs, outputs)):
                layer = nn.Conv1d(first, second, 3, padding=2 * 2**level, dilation=2**level)
                layers += [nn.utils.weight_norm(layer), Chomp(2 * 2**level), nn.ReLU(), nn.Dropout(0.1)]
        self.network, self.linear = nn.Sequential(*layers), nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.network(x.transpose(2, 3).flatten(1, 2))[:, :, -1])


class _Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 0.5 * (weight + weight.flip(-1))


class _Positive(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * F.softplus(self.scale)


def stacked_parametrizations() -> nn.Module:
    """A convolution with two parametrizations of one weight, of which one has weights of its own."""
    block = nn.Sequential(nn.Conv2d(WIDTH, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, WIDTH, 3, padding=1))
    parametrize.register_parametrization(block[0], "weight", _Symmetric())
    parametrize.register_parametrization(block[0], "weight", _Positive(24))
    return block


class RunningCentre(nn.Module):
    """Subtracts a mean of the features that a buffer follows while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.after = conv(WIDTH, 24), conv(24, WIDTH)
        self.register_buffer("center", torch.zeros(1, 24, 1, 1))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update_center(self, x: Tensor) -> None:
        self.center = self.center * 0.9 + x.mean((0, 2, 3), keepdim=True) * 0.1
        self.count += 1

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.training:
            self.update_center(x.detach())
        return self.after(x - self.center)


class WaveNet(nn.Module):
    """Gated dilated convolutions over the pixels of a row, with residual and skip connections."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.n_channels, self.n_layers = 12, 3
        self.start = nn.Conv1d(channels * image_size, self.n_channels, 1)
        self.in_layers, self.res_skip_layers = nn.ModuleList(), nn.ModuleList()
        for i in range(self.n_layers):
            self.in_layers.append(nn.Conv1d(self.n_channels, 2 * self.n_channels, 3, dilation=2**i, padding=2**i))
            last = i == self.n_layers - 1
            self.res_skip_layers.append(nn.Conv1d(self.n_channels, self.n_channels * (1 if last else 2), 1))
        self.end = nn.Linear(self.n_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        audio, output = self.start(x.flatten(1, 2)), None
        for i in range(self.n_layers):
            acts = self.in_layers[i](audio)
            acts = torch.tanh(acts[:, : self.n_channels, :]) * torch.sigmoid(acts[:, self.n_channels :, :])
            res_skip = self.res_skip_layers[i](acts)
            if i < self.n_layers - 1:
                audio = audio + res_skip[:, : self.n_channels, :]
                skip = res_skip[:, self.n_channels :, :]
            else:
                skip = res_skip
            output = skip if output is None else skip + output
        return self.end(output.mean(2))


class SetAttention(nn.Module):
    """The Set Transformer's attention: heads are joined along the batch, and seeds ask."""

    def __init__(self, dim: int = WIDTH, num_heads: int = 2) -> None:
        super().__init__()
        self.dim_V, self.num_heads = 24, num_heads
        self.S = nn.Parameter(torch.randn(1, 4, dim))
        self.fc_q, self.fc_k, self.fc_v = (nn.Linear(dim, self.dim_V) for _ in range(3))
        self.fc_o, self.back = nn.Linear(self.dim_V, self.dim_V), nn.Linear(self.dim_V, dim)

    def forward(self, x: Tensor) -> Tensor:
        q = self.fc_q(self.S.repeat(x.size(0), 1, 1))
        k, v = self.fc_k(x), self.fc_v(x)
        dim_split = self.dim_V // self.num_heads
        q_ = torch.cat(q.split(dim_split, 2), 0)
        k_ = torch.cat(k.split(dim_split, 2), 0)
        v_ = torch.cat(v.split(dim_split, 2), 0)
        attention = torch.softmax(q_.bmm(k_.transpose(1, 2)) / math.sqrt(self.dim_V), 2)
        out = torch.cat((q_ + attention.bmm(v_)).split(q.size(0), 0), 2)
        return self.back(out + F.relu(self.fc_o(out)))


class VisionGraph(nn.Module):
    """Max-relative graph convolution over the nearest tokens."""

    def __init__(self, dim: int = WIDTH, neighbours: int = 4) -> None:
        super().__init__()
        self.k, self.fc1 = neighbours, nn.Sequential(nn.Conv2d(dim, 20, 1), nn.BatchNorm2d(20))
        self.nn = nn.Sequential(nn.Conv2d(40, 40, 1, groups=4), nn.BatchNorm2d(40), nn.GELU())
        self.fc2 = nn.Conv2d(40, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut, x = x, self.fc1(x)
        b, c, h, w = x.shape
        nodes = x.reshape(b, c, -1)
        with torch.no_grad():
            points = F.normalize(nodes, dim=1).transpose(1, 2)
            _, index = torch.topk(-torch.cdist(points, points), k=self.k)
        near = nodes.unsqueeze(-1).expand(-1, -1, -1, self.k)
        index = index.unsqueeze(1).expand(-1, c, -1, -1)
        x_j = torch.gather(near, 2, index)
        relative, _ = (x_j - nodes.unsqueeze(-1)).max(-1, keepdim=True)
        joined = torch.cat([nodes.unsqueeze(2), relative.squeeze(-1).unsqueeze(2)], dim=2).reshape(b, 2 * c, h, w)
        return self.fc2(self.nn(joined)) + shortcut


class SelfCalibrated(nn.Module):
    """SCNet's convolution: a coarse path gates a fine one."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        half = width // 2
        self.conv1_a, self.conv1_b = conv(width, half, 1), conv(width, half, 1)
        self.k1 = conv(half, half)
        self.k2 = nn.Sequential(nn.AvgPool2d(4, 4), nn.Conv2d(half, half, 3, padding=1), nn.BatchNorm2d(half))
        self.k3, self.k4 = nn.Sequential(nn.Conv2d(half, half, 3, padding=1), nn.BatchNorm2d(half)), conv(half, half)
        self.conv3 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        out_a, out_b = self.conv1_a(x), self.conv1_b(x)
        gate = torch.sigmoid(torch.add(out_b, F.interpolate(self.k2(out_b), out_b.size()[2:])))
        out_b = self.k4(torch.mul(self.k3(out_b), gate))
        return F.relu(self.conv3(torch.cat([self.k1(out_a), out_b], dim=1)) + x)


class SpatialShift(nn.Module):
    """S2-MLP: quarters of the channels move by one place in four directions, in place; three ways are weighed."""

    def __init__(self, channels: int = WIDTH) -> None:
        super().__init__()
        self.mlp1, self.mlp2 = nn.Linear(channels, channels * 3), nn.Linear(channels, channels)
        self.a1, self.a2 = nn.Linear(channels, channels, bias=False), nn.Linear(channels, channels * 3, bias=False)

    def shifted(self, x: Tensor) -> Tensor:
        _, w, h, c = x.size()
        x[:, 1:, :, : c // 4] = x[:, : w - 1, :, : c // 4].clone()
        x[:, : w - 1, :, c // 4 : c // 2] = x[:, 1:, :, c // 4 : c // 2].clone()
        x[:, :, 1:, c // 2 : c * 3 // 4] = x[:, :, : h - 1, c // 2 : c * 3 // 4].clone()
        x[:, :, : h - 1, 3 * c // 4 :] = x[:, :, 1:, 3 * c // 4 :].clone()
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        b, w, h, c = x.size()
        y = self.mlp1(x)
        stacked = torch.stack([self.shifted(y[..., :c]), self.shifted(y[..., c : c * 2]), y[..., c * 2 :]], 1)
        stacked = stacked.reshape(b, 3, -1, c)
        hat = self.a2(F.gelu(self.a1(stacked.sum(1).sum(1)))).reshape(b, 3, c)
        out = (hat.softmax(1).unsqueeze(-2) * stacked).sum(1).reshape(b, w, h, c)
        return (x + self.mlp2(out)).permute(0, 3, 1, 2)


class WaveMlp(nn.Module):
    """Tokens are waves: amplitude and phase, joined as cosine and sine and mixed by groups."""

    def __init__(self, dim: int = WIDTH) -> None:
        super().__init__()
        self.theta_h_conv = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim), nn.ReLU())
        self.fc_h, self.fc_c = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.tfc_h = nn.Conv2d(2 * dim, dim, (1, 7), stride=1, padding=(0, 7 // 2), groups=dim, bias=False)
        self.reweight = nn.Sequential(nn.Conv2d(dim, dim // 4, 1), nn.GELU(), nn.Conv2d(dim // 4, dim * 2, 1))
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.shape
        theta, height = self.theta_h_conv(x), self.fc_h(x)
        h = self.tfc_h(torch.cat([height * torch.cos(theta), height * torch.sin(theta)], dim=1))
        c_ = self.fc_c(x)
        a = F.adaptive_avg_pool2d(h + c_, output_size=1)
        a = self.reweight(a).reshape(b, c, 2).permute(2, 0, 1).softmax(dim=0).unsqueeze(-1).unsqueeze(-1)
        return x + self.proj(h * a[0] + c_ * a[1])


class LoraLinear(nn.Module):
    """A frozen linear layer with a trained difference of low rank."""

    def __init__(self, base: nn.Linear, r: int = 4, alpha: int = 8) -> None:
        super().__init__()
        self.base, self.scaling, self.merged = base, alpha / r, False
        self.base.weight.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.randn(r, base.in_features) / base.in_features**0.5)
        self.lora_B = nn.Parameter(torch.randn(base.out_features, r) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + (F.dropout(x, 0.1, self.training) @ self.lora_A.T @ self.lora_B.T) * self.scaling


def lora() -> nn.Module:
    """An MLP of layers with differences of low rank."""
    return nn.Sequential(LoraLinear(nn.Linear(WIDTH, 32)), nn.GELU(), LoraLinear(nn.Linear(32, WIDTH)))


class StyleNorm(nn.Module):
    """Adaptive instance norm: scale and shift come from the image as a whole."""

    def __init__(self, num_features: int = WIDTH, style_dim: int = 12) -> None:
        super().__init__()
        self.style = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_features, style_dim), nn.ReLU())
        self.conv1 = nn.Conv2d(num_features, 24, 3, padding=1)
        self.norm, self.fc = nn.InstanceNorm2d(24, affine=False), nn.Linear(style_dim, 24 * 2)
        self.conv2 = nn.Conv2d(24, num_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(self.style(x))
        h = h.view(h.size(0), h.size(1), 1, 1)
        gamma, beta = torch.chunk(h, chunks=2, dim=1)
        return self.conv2(F.leaky_relu((1 + gamma) * self.norm(self.conv1(x)) + beta, 0.2))


class Fractal(nn.Module):
    """A FractalNet block: paths of several depths meet in their mean."""

    def __init__(self, n_columns: int = 3) -> None:
        super().__init__()
        self.n_columns, self.max_depth = n_columns, 2 ** (n_columns - 1)
        self.columns = nn.ModuleList([nn.ModuleList() for _ in range(n_columns)])
        distance = self.max_depth
        for column in self.columns:
            for depth in range(self.max_depth):
                column.append(conv(WIDTH, WIDTH) if (depth + 1) % distance == 0 else nn.Module())
            distance //= 2

    def forward(self, x: Tensor) -> Tensor:
        outs = [x] * self.n_columns
        for depth in range(self.max_depth):
            joined = [c for c in range(self.n_columns) if isinstance(self.columns[c][depth], nn.Sequential)]
            made = torch.stack([self.columns[c][depth](outs[c]) for c in joined]).mean(dim=0)
            for c in joined:
                outs[c] = made
        return outs[0]


class SearchedCell(nn.Module):
    """A DARTS cell: every edge is a mean of operations weighed by a softmax; the last states are joined."""

    def __init__(self, c: int = WIDTH, steps: int = 2) -> None:
        super().__init__()
        self._steps, self._ops = steps, nn.ModuleList()
        for i in range(steps):
            for _ in range(2 + i):
                ops = [conv(c, c), nn.Sequential(conv(c, c, groups=c), conv(c, c, 1)), nn.AvgPool2d(3, 1, 1)]
                self._ops.append(nn.ModuleList([*ops, nn.Identity()]))
        self.alphas = nn.Parameter(1e-3 * torch.randn(len(self._ops), 4))
        self.preprocess = conv(2 * c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights, states, offset = F.softmax(self.alphas, dim=-1), [x, x], 0
        for _ in range(self._steps):
            s = sum(
                sum(w * op(h) for w, op in zip(weights[offset + j], self._ops[offset + j], strict=True))
                for j, h in enumerate(states)
            )
            offset += len(states)
            states.append(s)
        return self.preprocess(torch.cat(states[-2:], dim=1))


class SlimmableConv(nn.Conv2d):
    """A convolution that uses a part of its weight, as a width multiplier says."""

    width_mult = 0.75

    def __init__(self, inputs: int, outputs: int, *, us: tuple[bool, bool]) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.us, self.in_channels_max, self.out_channels_max = us, inputs, outputs

    def forward(self, x: Tensor) -> Tensor:
        if self.us[0]:
            self.in_channels = int(self.in_channels_max * self.width_mult)
        if self.us[1]:
            self.out_channels = int(self.out_channels_max * self.width_mult)
        weight, bias = self.weight[: self.out_channels, : self.in_channels], self.bias[: self.out_channels]
        return F.conv2d(x, weight, bias, self.stride, self.padding)


def slimmable() -> nn.Module:
    """Two such convolutions: the first gives a part of its outputs, the second reads as many."""
    return nn.Sequential(
        SlimmableConv(WIDTH, 24, us=(False, True)),
        nn.ReLU(),
        SlimmableConv(24, WIDTH, us=(True, False)),
        conv(WIDTH, 16),
    )


class ComplexBlock(nn.Module):
    """Complex numbers as two maps: real and imaginary parts of inputs and weights."""

    def __init__(self, inputs: int = WIDTH // 2, outputs: int = 12) -> None:
        super().__init__()
        self.conv_r, self.conv_i = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn_r, self.bn_i = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.fuse = conv(2 * outputs, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        real, imaginary = torch.chunk(x, 2, 1)
        made = torch.complex(
            self.bn_r(self.conv_r(real) - self.conv_i(imaginary)), self.bn_i(self.conv_r(imaginary) + self.conv_i(real))
        )
        return self.fuse(torch.cat([F.relu(made.real), F.relu(made.imag)], 1))


class Quaternion(nn.Module):
    """A quaternion convolution: one kernel is put together from four."""

    def __init__(self, inputs: int = WIDTH, outputs: int = 24) -> None:
        super().__init__()
        shape = (outputs // 4, inputs // 4, 3, 3)
        self.r_weight, self.i_weight, self.j_weight, self.k_weight = (
            nn.Parameter(torch.randn(shape) / 10) for _ in range(4)
        )
        self.bias, self.after = nn.Parameter(torch.zeros(outputs)), conv(outputs, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        r, i, j, k = self.r_weight, self.i_weight, self.j_weight, self.k_weight
        rows = [
            torch.cat([r, -i, -j, -k], dim=1),
            torch.cat([i, r, -k, j], dim=1),
            torch.cat([j, k, r, -i], dim=1),
            torch.cat([k, -j, i, r], dim=1),
        ]
        return self.after(F.conv2d(x, torch.cat(rows, dim=0), self.bias, 1, 1))


class RotatedFilters(nn.Module):
    """A convolution equivariant to quarter turns: rotated copies of the filters, then the largest of the four."""

    def __init__(self, inputs: int = WIDTH, outputs: int = 12) -> None:
        super().__init__()
        self.weight, self.out_channels = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / 10), outputs
        self.bn, self.after = nn.BatchNorm2d(outputs), conv(outputs, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        filters = torch.cat([torch.rot90(self.weight, turn, (2, 3)) for turn in range(4)], 0)
        y = F.conv2d(x, filters, padding=1)
        y = y.view(y.size(0), 4, self.out_channels, y.size(2), y.size(3)).max(dim=1).values
        return self.after(self.bn(y))


class Carafe(nn.Module):
    """Content-aware upsampling: kernels that the map predicts, over patches of it."""

    def __init__(self, c: int = WIDTH, k_up: int = 3, scale: int = 2) -> None:
        super().__init__()
        self.scale, self.k_up = scale, k_up
        self.comp, self.enc = conv(c, 12, 1), nn.Conv2d(12, (scale * k_up) ** 2, 3, padding=1)
        self.pix_shf, self.unfold = nn.PixelShuffle(scale), nn.Unfold(k_up, dilation=scale, padding=scale)
        self.upsmp, self.down = nn.Upsample(scale_factor=scale, mode="nearest"), conv(c, 24, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.size()
        h_, w_ = h * self.scale, w * self.scale
        weights = torch.softmax(self.pix_shf(self.enc(self.comp(x))), dim=1)
        patches = self.unfold(self.upsmp(x)).view(b, c, -1, h_, w_)
        return self.down(torch.einsum("bkhw,bckhw->bchw", weights, patches))


class SlotAttention(nn.Module):
    """Slots compete for the tokens and are updated by a GRU cell."""

    def __init__(self, num_slots: int = 4, dim: int = WIDTH, iters: int = 2) -> None:
        super().__init__()
        self.num_slots, self.iters, self.scale = num_slots, iters, dim**-0.5
        self.slots_mu = nn.Parameter(torch.randn(1, num_slots, dim))
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.gru = nn.GRUCell(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 32), nn.ReLU(inplace=True), nn.Linear(32, dim))
        self.norm_input, self.norm_slots, self.norm_pre_ff = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        b, _, d = inputs.shape
        slots, inputs = self.slots_mu.expand(b, -1, -1), self.norm_input(inputs)
        k, v = self.to_k(inputs), self.to_v(inputs)
        for _ in range(self.iters):
            slots_prev, q = slots, self.to_q(self.norm_slots(slots))
            attn = (torch.einsum("bid,bjd->bij", q, k) * self.scale).softmax(dim=1) + 1e-8
            updates = torch.einsum("bjd,bij->bid", v, attn / attn.sum(dim=-1, keepdim=True))
            slots = self.gru(updates.reshape(-1, d), slots_prev.reshape(-1, d)).reshape(b, -1, d)
            slots = slots + self.mlp(self.norm_pre_ff(slots))
        return slots


class MinGru(nn.Module):
    """A GRU whose gates do not read the state, computed at once by sums of logarithms."""

    def __init__(self, dim: int = WIDTH, expansion: float = 1.5) -> None:
        super().__init__()
        inner = int(dim * expansion)
        self.to_hidden_and_gate, self.to_out = nn.Linear(dim, inner * 2, bias=False), nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden, gate = self.to_hidden_and_gate(x).chunk(2, dim=-1)
        log_coeffs, log_z = -F.softplus(gate), -F.softplus(-gate)
        log_values = log_z + torch.where(hidden >= 0, (F.relu(hidden) + 0.5).log(), -F.softplus(-hidden))
        a_star = log_coeffs.cumsum(dim=1)
        return x + self.to_out((a_star + (log_values - a_star).logcumsumexp(dim=1)).exp())


class DiagonalStateSpace(nn.Module):
    """S4D: the kernel of a long convolution is made from a diagonal system and applied by a Fourier transform."""

    def __init__(self, d_model: int = WIDTH, n: int = 4) -> None:
        super().__init__()
        self.h, self.n = d_model, n
        self.log_dt = nn.Parameter(torch.rand(d_model) - 3)
        self.C = nn.Parameter(torch.randn(d_model, n, 2))
        self.log_A_real = nn.Parameter(torch.log(0.5 * torch.ones(d_model, n)))
        self.A_imag, self.D = (
            nn.Parameter(math.pi * torch.arange(n).float().repeat(d_model, 1)),
            nn.Parameter(torch.ones(d_model)),
        )
        self.output_linear = nn.Sequential(nn.Conv1d(d_model, 2 * d_model, kernel_size=1), nn.GLU(dim=-2))

    def kernel(self, length: int) -> Tensor:
        dt, c = torch.exp(self.log_dt), torch.view_as_complex(self.C)
        a = -torch.exp(self.log_A_real) + 1j * self.A_imag
        dta = a * dt.unsqueeze(-1)
        powers = dta.unsqueeze(-1) * torch.arange(length, device=a.device)
        c = c * (torch.exp(dta) - 1.0) / a
        return 2 * torch.einsum("hn, hnl -> hl", c, torch.exp(powers)).real

    def forward(self, u: Tensor) -> Tensor:
        u = u.transpose(-1, -2)
        length = u.size(-1)
        k_f = torch.fft.rfft(self.kernel(length), n=2 * length)
        u_f = torch.fft.rfft(u, n=2 * length)
        y = torch.fft.irfft(u_f * k_f, n=2 * length)[..., :length] + u * self.D.unsqueeze(-1)
        return self.output_linear(F.gelu(y)).transpose(-1, -2)


class DifferentialAttention(nn.Module):
    """The difference of two softmaxes, weighed by learnt products, and a norm of each head."""

    def __init__(self, embed_dim: int = WIDTH, num_heads: int = 2) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads // 2
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(embed_dim, embed_dim, bias=False) for _ in range(4)
        )
        self.lambda_q1, self.lambda_k1 = (nn.Parameter(0.1 * torch.randn(self.head_dim)) for _ in range(2))
        self.subln = nn.RMSNorm(2 * self.head_dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        bsz, length, _ = x.size()
        q = self.q_proj(x).view(bsz, length, 2 * self.num_heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(bsz, length, 2 * self.num_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(bsz, length, self.num_heads, 2 * self.head_dim).transpose(1, 2)
        weights = F.softmax(torch.matmul(q * self.head_dim**-0.5, k.transpose(-1, -2)), dim=-1)
        weights = weights.view(bsz, self.num_heads, 2, length, length)
        factor = torch.exp(torch.sum(self.lambda_q1 * self.lambda_k1, dim=-1))
        attn = self.subln(torch.matmul(weights[:, :, 0] - factor * weights[:, :, 1], v)) * 0.2
        return x + self.out_proj(attn.transpose(1, 2).reshape(bsz, length, self.num_heads * 2 * self.head_dim))


class GroupedQueries(nn.Module):
    """LLaMA's attention and MLP: few heads of keys that several heads of queries share, widths as products."""

    def __init__(self, dim: int = WIDTH, n_heads: int = 4, n_kv_heads: int = 2, head_dim: int = 8) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.n_rep = n_heads // n_kv_heads
        self.wq = nn.Linear(dim, n_heads * head_dim, bias=False)
        self.wk, self.wv = (nn.Linear(dim, n_kv_heads * head_dim, bias=False) for _ in range(2))
        self.wo = nn.Linear(n_heads * head_dim, dim, bias=False)
        self.attention_norm, self.ffn_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.w1, self.w2, self.w3 = nn.Linear(dim, 40, bias=False), nn.Linear(40, dim, bias=False), nn.Linear(dim, 40)

    def repeat_kv(self, x: Tensor) -> Tensor:
        bs, slen, n_kv_heads, head_dim = x.shape
        return (
            x[:, :, :, None, :]
            .expand(bs, slen, n_kv_heads, self.n_rep, head_dim)
            .reshape(bs, slen, n_kv_heads * self.n_rep, head_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        y, (bsz, seqlen, _) = self.attention_norm(x), x.shape
        xq = self.wq(y).view(bsz, seqlen, self.n_heads, self.head_dim)
        xk = self.wk(y).view(bsz, seqlen, self.n_kv_heads, self.head_dim)
        xv = self.wv(y).view(bsz, seqlen, self.n_kv_heads, self.head_dim)
        xq, keys, values = (t.transpose(1, 2) for t in (xq, self.repeat_kv(xk), self.repeat_kv(xv)))
        scores = F.softmax(torch.matmul(xq, keys.transpose(2, 3)) / math.sqrt(self.head_dim), dim=-1)
        output = torch.matmul(scores, values).transpose(1, 2).contiguous().view(bsz, seqlen, -1)
        h = x + self.wo(output)
        y = self.ffn_norm(h)
        return h + self.w2(F.silu(self.w1(y)) * self.w3(y))


class FeatureTransform(nn.Module):
    """PointNet: a small network predicts a matrix that turns the features of every place."""

    def __init__(self, k: int = WIDTH) -> None:
        super().__init__()
        self.k = k
        self.conv1, self.conv2, self.bn1 = nn.Conv1d(k, 24, 1), nn.Conv1d(24, 32, 1), nn.BatchNorm1d(24)
        self.fc1, self.fc2 = nn.Linear(32, 20), nn.Linear(20, k * k)

    def forward(self, x: Tensor) -> Tensor:
        points, batchsize = x.flatten(2), x.size(0)
        y = self.conv2(F.relu(self.bn1(self.conv1(points))))
        y = torch.max(y, 2, keepdim=True)[0].view(-1, 32)
        y = self.fc2(F.relu(self.fc1(y)))
        iden = torch.eye(self.k, device=x.device).flatten().view(1, self.k * self.k).repeat(batchsize, 1)
        trans = (y + iden).view(-1, self.k, self.k)
        return torch.bmm(points.transpose(2, 1), trans).transpose(2, 1).reshape(x.shape)


class HarmonicDense(nn.Module):
    """HarDNet's block: each layer reads those that lie a power of two before it; widths grow with the links."""

    def __init__(self, in_channels: int = WIDTH, growth_rate: int = 8, grmul: float = 1.6, n_layers: int = 4) -> None:
        super().__init__()
        self.in_channels, self.growth_rate, self.grmul = in_channels, growth_rate, grmul
        self.links, layers, self.out_channels = [], [], 0
        for i in range(n_layers):
            outch, inch, link = self.get_link(i + 1)
            self.links.append(link)
            layers.append(conv(inch, outch))
            if i % 2 == 0 or i == n_layers - 1:
                self.out_channels += outch
        self.layers, self.after = nn.ModuleList(layers), conv(self.out_channels, WIDTH, 1)

    def get_link(self, layer: int) -> tuple[int, int, list[int]]:
        """Return outputs, inputs and the layers that a layer reads."""
        if layer == 0:
            return self.in_channels, 0, []
        out_channels, link = float(self.growth_rate), []
        for i in range(10):
            if layer % 2**i == 0:
                link.append(layer - 2**i)
                out_channels *= self.grmul if i > 0 else 1
        return int(int(out_channels + 1) / 2) * 2, sum(self.get_link(i)[0] for i in link), link

    def forward(self, x: Tensor) -> Tensor:
        layers_ = [x]
        for layer in range(len(self.layers)):
            tin = [layers_[i] for i in self.links[layer]]
            layers_.append(self.layers[layer](torch.cat(tin, 1) if len(tin) > 1 else tin[0]))
        t = len(layers_)
        return self.after(torch.cat([layers_[i] for i in range(t) if i == t - 1 or i % 2 == 1], 1))


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "selective_scan": tokens(SelectiveScan),
    "spatial_gating": tokens(SpatialGating),
    "adaptive_fourier": framed(AdaptiveFourier),
    "retention": tokens(Retention),
    "time_mix": tokens(TimeMix),
    "efficient_pyramid": framed(EfficientPyramid, 24),
    "library_pyramid": LibraryPyramid,
    "graph_module": graph_module,
    "pooling_attention": tokens(PoolingAttention),
    "cosine_attention": tokens(CosineAttention),
    "outlook": framed(Outlook),
    "relative_positions": framed(RelativePositions),
    "lambda_interactions": framed(LambdaInteractions),
    "integrated": framed(Integrated),
    "multiscale_gate": framed(MultiscaleGate, 24),
    "affine_coupling": framed(AffineCoupling),
    "quasi_recurrent": tokens(QuasiRecurrent),
    "temporal_convolution": TemporalConvolution,
    "stacked_parametrizations": framed(stacked_parametrizations),
    "running_centre": framed(RunningCentre),
    "wavenet": WaveNet,
    "set_attention": tokens(SetAttention),
    "vision_graph": framed(VisionGraph),
    "self_calibrated": framed(SelfCalibrated),
    "spatial_shift": framed(SpatialShift),
    "wave_mlp": framed(WaveMlp),
    "lora": tokens(lora),
    "style_norm": framed(StyleNorm),
    "fractal": framed(Fractal),
    "searched_cell": framed(SearchedCell),
    "slimmable": framed(slimmable),
    "complex_block": framed(ComplexBlock),
    "quaternion": framed(Quaternion),
    "rotated_filters": framed(RotatedFilters),
    "carafe": framed(Carafe, 24),
    "slot_attention": tokens(SlotAttention),
    "min_gru": tokens(MinGru),
    "diagonal_state_space": tokens(DiagonalStateSpace),
    "differential_attention": tokens(DifferentialAttention),
    "grouped_queries": tokens(GroupedQueries),
    "feature_transform": framed(FeatureTransform),
    "harmonic_dense": framed(HarmonicDense),
}
