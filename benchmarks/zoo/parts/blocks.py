"""Convolutional blocks of papers, in their authors' own code: detectors, gates over groups, activations that learn."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo.parts.frames import WIDTH, conv, framed


class Focus(nn.Module):
    """YOLO's stem by slices, a chain that grows a list of halves (C2f), and pools of pools (SPPF)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.c = 12
        self.conv, self.cv1 = conv(4 * channels, WIDTH), conv(WIDTH, 2 * self.c, 1)
        self.m = nn.ModuleList(conv(self.c, self.c) for _ in range(2))
        self.cv2, self.pool = conv(4 * self.c, WIDTH, 1), nn.MaxPool2d(5, 1, 2)
        self.cv3, self.linear = conv(4 * WIDTH, 24, 1), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1))
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        y = [self.cv2(torch.cat(y, 1))]
        y.extend(self.pool(y[-1]) for _ in range(3))
        return self.linear(F.adaptive_avg_pool2d(self.cv3(torch.cat(y, 1)), 1).flatten(1))


class WeighedFusion(nn.Module):
    """Adds maps of several sizes with weights that are normalised as it runs (BiFPN)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = conv(WIDTH, 24, stride=2), conv(24, 24, stride=2)
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, 20, 1) for inputs in (WIDTH, 24, 24))
        self.w1, self.w2 = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
        self.out, self.epsilon = conv(20, WIDTH), 1e-4

    def forward(self, x: Tensor) -> Tensor:
        c1 = self.down1(x)
        p0, p1, p2 = (layer(each) for layer, each in zip(self.lateral, (x, c1, self.down2(c1)), strict=True))
        w1 = F.relu(self.w1)
        w1 = w1 / (w1.sum() + self.epsilon)
        middle = w1[0] * p1 + w1[1] * F.interpolate(p2, scale_factor=2)
        w2 = F.relu(self.w2)
        w2 = w2 / (w2.sum() + self.epsilon)
        return self.out(w2[0] * p0 + w2[1] * F.interpolate(middle, scale_factor=2) + w2[2] * p0)


class PaddedSkip(nn.Module):
    """milesial's U-Net: pads what comes up by the difference of the sizes, and joins."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Sequential(nn.MaxPool2d(3, 3), conv(WIDTH, 32)), nn.ConvTranspose2d(32, 20, 2, 2)
        self.conv = nn.Sequential(conv(20 + WIDTH, 24), conv(24, WIDTH))

    def forward(self, x2: Tensor) -> Tensor:
        x1 = self.up(self.down(x2))
        diff_y, diff_x = x2.size()[2] - x1.size()[2], x2.size()[3] - x1.size()[3]
        x1 = F.pad(x1, [diff_x // 2, diff_x - diff_x // 2, diff_y // 2, diff_y - diff_y // 2])
        return self.conv(torch.cat([x2, x1], dim=1))


class LearntActivations(nn.Module):
    """Activations with numbers of their own for each channel (ACON), and the larger of a map and its blur (FReLU)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv(WIDTH, 24, 1), nn.Conv2d(24, 20, 3, padding=1), conv(20, WIDTH)
        self.p1, self.p2 = (nn.Parameter(torch.randn(1, 24, 1, 1)) for _ in range(2))
        self.beta = nn.Parameter(torch.ones(1, 24, 1, 1))
        self.funnel = nn.Conv2d(20, 20, 3, padding=1, groups=20, bias=False)
        self.bn = nn.BatchNorm2d(20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        difference = (self.p1 - self.p2) * x
        x = self.conv2(difference * torch.sigmoid(self.beta * difference) + self.p2 * x)
        return self.conv3(torch.max(x, self.bn(self.funnel(x))))


class DynamicRelu(nn.Module):
    """Slopes and shifts of each channel that are computed from the image (Dynamic ReLU)."""

    def __init__(self, channels: int = 24, k: int = 2) -> None:
        super().__init__()
        self.channels, self.k = channels, k
        self.before, self.after = conv(WIDTH, channels), conv(channels, WIDTH)
        self.fc1, self.fc2 = nn.Linear(channels, 8), nn.Linear(8, 2 * k * channels)
        self.register_buffer("lambdas", torch.tensor([1.0] * k + [0.5] * k))
        self.register_buffer("init_v", torch.tensor([1.0] + [0.0] * (2 * k - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        theta = torch.mean(torch.mean(x, axis=-1), axis=-1)
        theta = 2 * torch.sigmoid(self.fc2(F.relu(self.fc1(theta)))) - 1
        coefs = theta.view(-1, self.channels, 2 * self.k) * self.lambdas + self.init_v
        x_perm = x.permute(2, 3, 0, 1).unsqueeze(-1)
        output = x_perm * coefs[:, :, : self.k] + coefs[:, :, self.k :]
        return self.after(torch.max(output, dim=-1)[0].permute(2, 3, 0, 1))


class LargestChannels(nn.Module):
    """Lets through the channels of the largest gates, by topk and scatter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.back, self.k = conv(WIDTH, 24), nn.Linear(24, 24), conv(24, WIDTH), 12
        self.more = conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        scores = torch.sigmoid(self.gate(x.mean((2, 3))))
        values, indices = torch.topk(scores, self.k, dim=1)
        mask = torch.zeros_like(scores).scatter_(1, indices, values)
        return self.more(self.back(x * mask[:, :, None, None]))


class RoutedBranches(nn.Module):
    """Sends each image through one of several branches, by argmax and a one-hot vector."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 3)
        self.branches = nn.ModuleList(nn.Sequential(conv(WIDTH, 24), conv(24, WIDTH)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(F.adaptive_avg_pool2d(x, 1).flatten(1)).softmax(1)
        hard = F.one_hot(scores.argmax(1), num_classes=3).to(x.dtype) - scores.detach() + scores
        return torch.stack([branch(x) for branch in self.branches], 1).mul(hard[:, :, None, None, None]).sum(1)


class VectorQuantized(nn.Module):
    """Replaces every place by the nearest of a table's rows, straight through (VQ-VAE)."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Sequential(conv(WIDTH, 24), nn.Conv2d(24, 8, 1)), conv(8, WIDTH)
        self.embedding, self.dim = nn.Embedding(16, 8), 8

    def forward(self, x: Tensor) -> Tensor:
        z = self.before(x).permute(0, 2, 3, 1).contiguous()
        flat = z.view(-1, self.dim)
        distances = (flat**2).sum(1, keepdim=True) + (self.embedding.weight**2).sum(1)
        distances = distances - 2 * torch.matmul(flat, self.embedding.weight.t())
        quantized = self.embedding(torch.argmin(distances, dim=1)).view(z.shape)
        quantized = z + (quantized - z).detach()
        return self.after(quantized.permute(0, 3, 1, 2).contiguous())


class Prototypes(nn.Module):
    """Classifies by the negative distance to learned points (prototypical networks)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24), conv(24, 32, stride=2))
        self.prototypes = nn.Parameter(torch.randn(classes, 32))

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x).mean(dim=[2, 3])
        return -torch.cdist(features.unsqueeze(0), self.prototypes.unsqueeze(0)).squeeze(0)


class ShuffleAttention(nn.Module):
    """Gates the halves of groups by channel and by place, with numbers for one group, and shuffles (SA-Net)."""

    def __init__(self, channel: int = WIDTH, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.before, self.after = conv(WIDTH, channel), conv(channel, WIDTH)
        shape = (1, channel // (2 * groups), 1, 1)
        self.cweight, self.sweight = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))
        self.cbias, self.sbias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.ones(shape))
        self.gn = nn.GroupNorm(channel // (2 * groups), channel // (2 * groups))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        b, c, h, w = x.shape
        x0, x1 = x.reshape(b * self.groups, -1, h, w).chunk(2, dim=1)
        xn = x0 * torch.sigmoid(self.cweight * F.adaptive_avg_pool2d(x0, 1) + self.cbias)
        xs = x1 * torch.sigmoid(self.sweight * self.gn(x1) + self.sbias)
        out = torch.cat([xn, xs], dim=1).reshape(b, -1, h, w)
        out = out.reshape(b, 2, -1, h, w).permute(0, 2, 1, 3, 4).reshape(b, -1, h, w)
        return self.after(out)


class TripletAttention(nn.Module):
    """Turns the map so that each pair of axes is gated by the largest and the mean of the third."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = conv(WIDTH, 24), conv(24, WIDTH)
        self.cw, self.hc, self.hw = (nn.Conv2d(2, 1, 7, padding=3) for _ in range(3))

    def _gate(self, x: Tensor, layer: nn.Module) -> Tensor:
        return x * torch.sigmoid(layer(torch.cat((torch.max(x, 1)[0].unsqueeze(1), x.mean(1).unsqueeze(1)), dim=1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        first = self._gate(x.permute(0, 2, 1, 3).contiguous(), self.cw).permute(0, 2, 1, 3).contiguous()
        second = self._gate(x.permute(0, 3, 2, 1).contiguous(), self.hc).permute(0, 3, 2, 1).contiguous()
        return self.after((first + second + self._gate(x, self.hw)) / 3)


class SplitAttention(nn.Module):
    """Weighs the two halves of twice the channels by a softmax over both (ResNeSt)."""

    def __init__(self, channels: int = 24, radix: int = 2) -> None:
        super().__init__()
        self.radix, self.channels, self.cardinality = radix, channels, 1
        self.conv = conv(WIDTH, channels * radix, groups=radix)
        self.fc1, self.bn1, self.fc2 = (
            nn.Conv2d(channels, 12, 1),
            nn.BatchNorm2d(12),
            nn.Conv2d(12, channels * radix, 1),
        )
        self.back = conv(channels, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        batch, rchannel = x.shape[:2]
        splited = torch.split(x, rchannel // self.radix, dim=1)
        gap = F.adaptive_avg_pool2d(sum(splited), 1)
        atten = self.fc2(F.relu(self.bn1(self.fc1(gap))))
        atten = atten.view(batch, self.cardinality, self.radix, -1).transpose(1, 2)
        atten = F.softmax(atten, dim=1).reshape(batch, -1).view(batch, -1, 1, 1)
        attens = torch.split(atten, rchannel // self.radix, dim=1)
        return self.back(sum(att * split for att, split in zip(attens, splited, strict=True)))


class PartialConvolution(nn.Module):
    """Convolves a quarter of the channels and leaves the others: joined in training, in place else (FasterNet)."""

    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.dim_conv3, self.dim_untouched = dim // 4, dim - dim // 4
        self.before = conv(WIDTH, dim)
        self.partial = nn.Conv2d(self.dim_conv3, self.dim_conv3, 3, padding=1, bias=False)
        self.mlp = nn.Sequential(conv(dim, 48, 1), nn.Conv2d(48, WIDTH, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        if self.training:
            x1, x2 = torch.split(x, [self.dim_conv3, self.dim_untouched], dim=1)
            return self.mlp(torch.cat((self.partial(x1), x2), 1))
        x = x.clone()
        x[:, : self.dim_conv3, :, :] = self.partial(x[:, : self.dim_conv3, :, :])
        return self.mlp(x)


class StripPooling(nn.Module):
    """Gates by means of rows and columns that are spread over the map again."""

    def __init__(self) -> None:
        super().__init__()
        self.pool1, self.pool2 = nn.AdaptiveAvgPool2d((1, None)), nn.AdaptiveAvgPool2d((None, 1))
        self.conv1, self.conv2 = (
            nn.Conv2d(WIDTH, 24, (1, 3), padding=(0, 1)),
            nn.Conv2d(WIDTH, 24, (3, 1), padding=(1, 0)),
        )
        self.conv3, self.more = nn.Conv2d(24, WIDTH, 1), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        _, _, h, w = x.size()
        x1 = self.conv1(self.pool1(x)).expand(-1, -1, h, w)
        x2 = self.conv2(self.pool2(x)).expand(-1, -1, h, w)
        return self.more(x * self.conv3(F.relu(x1 + x2)).sigmoid())


class ConvLstm(nn.Module):
    """Reads strips of the map by a convolutional LSTM whose state is zeros of the size it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_dim = 12
        self.conv = nn.Conv2d(WIDTH + 12, 4 * 12, 3, padding=1)
        self.back = conv(12, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.size()
        h = torch.zeros(b, self.hidden_dim, height, width // 4, device=x.device)
        c = torch.zeros(b, self.hidden_dim, height, width // 4, device=x.device)
        for step in range(4):
            combined = torch.cat([x[..., step * (width // 4) : (step + 1) * (width // 4)], h], dim=1)
            cc_i, cc_f, cc_o, cc_g = torch.split(self.conv(combined), self.hidden_dim, dim=1)
            c = torch.sigmoid(cc_f) * c + torch.sigmoid(cc_i) * torch.tanh(cc_g)
            h = torch.sigmoid(cc_o) * torch.tanh(c)
        return self.back(h)


class Simple(nn.Module):
    """Gates every place by how far it lies from the mean of its map, without weights (SimAM); pools mean and spread."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.e_lambda = 1e-4
        self.body, self.more = conv(channels, WIDTH, stride=2), conv(WIDTH, 24)
        self.fc = nn.Linear(3 * 24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        n = x.size()[2] * x.size()[3] - 1
        d = (x - x.mean(dim=[2, 3], keepdim=True)).pow(2)
        x = x * torch.sigmoid(d / (4 * (d.sum(dim=[2, 3], keepdim=True) / n + self.e_lambda)) + 0.5)
        x = self.more(x)
        flat = x.view(x.size(0), x.size(1), -1)
        pooled = F.avg_pool2d(x, kernel_size=x.size()[2:]).view(x.size(0), -1)
        return self.fc(torch.cat([pooled, flat.std(dim=2), flat.max(dim=2).values], dim=1))


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "focus": Focus,
    "weighed_fusion": framed(WeighedFusion),
    "padded_skip": framed(PaddedSkip),
    "learnt_activations": framed(LearntActivations),
    "dynamic_relu": framed(DynamicRelu),
    "largest_channels": framed(LargestChannels),
    "routed_branches": framed(RoutedBranches),
    "vector_quantized": framed(VectorQuantized),
    "prototypes": Prototypes,
    "shuffle_attention": framed(ShuffleAttention),
    "triplet_attention": framed(TripletAttention),
    "split_attention": framed(SplitAttention),
    "partial_convolution": framed(PartialConvolution),
    "strip_pooling": framed(StripPooling),
    "convolutional_lstm": framed(ConvLstm),
    "simple_gate": Simple,
}
