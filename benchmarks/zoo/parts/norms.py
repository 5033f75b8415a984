"""Networks with norms, dropout and layers of classes of their own, and weights that are computed from others."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from benchmarks.zoo.parts.frames import MIDDLE, WIDTH, conv, framed, plain


class NormAndActivation(nn.BatchNorm2d):
    """A batch norm of a library's own class with modules of its own, as timm's BatchNormAct2d."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(
            F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        )


class SamePadding(nn.Conv2d):
    """A convolution of a library's own class, padded in its forward, as timm's Conv2dSame."""

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 1, 0, 1))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _norms(norm: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), norm(), nn.ReLU(), conv(WIDTH, WIDTH))


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


class Standardized(nn.Conv2d):
    """Standardises its weights in its forward, as timm's ScaledStdConv2d and BiT's layers do."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        weight = self.gain * (self.weight - mean) * torch.rsqrt(variance + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ChannelLayerNorm(nn.LayerNorm):
    """Normalises the channels of maps, as ConvNeXt does."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class OwnNorm(nn.Module):
    """Divides by the root mean square over channels, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * self.weight.view(1, -1, 1, 1)


class NormalizedClassifier(nn.Module):
    """Compares normalised features with normalised weights (ArcFace, cosine classifiers)."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24))
        self.weight = nn.Parameter(torch.randn(classes, 24))
        self.register_buffer("scale", torch.tensor(16.0))

    def forward(self, x: Tensor) -> Tensor:
        features = F.normalize(self.conv(x).mean((2, 3)))
        return self.scale * F.linear(features, F.normalize(self.weight))


class Noise(nn.Module):
    """Adds noise while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x) if self.training else x


class MeanOnlyNorm(nn.Module):
    """Subtracts a running mean that it updates itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(x.mean((0, 2, 3)), 0.1)
        return x - self.mean[None, :, None, None] + self.bias[None, :, None, None]


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "own_layer_classes": plain(
        lambda: SamePadding(WIDTH, WIDTH, 2, bias=False), lambda: NormAndActivation(WIDTH), MIDDLE
    ),
    "weight_norm": framed(functools.partial(_reparametrized, "weight_norm")),
    "old_weight_norm": framed(functools.partial(_reparametrized, "old_weight_norm")),
    "spectral_norm": framed(functools.partial(_reparametrized, "spectral_norm")),
    "parametrization": framed(functools.partial(_reparametrized, "own")),
    "group_norm": framed(_norms(lambda: nn.GroupNorm(4, WIDTH))),
    "instance_norm": framed(_norms(lambda: nn.InstanceNorm2d(WIDTH, affine=True))),
    "prelu": plain(lambda: nn.Conv2d(WIDTH, WIDTH, 3), lambda: nn.PReLU(WIDTH), MIDDLE),
    "dropout": plain(MIDDLE, lambda: nn.Dropout2d(0.1), MIDDLE),
    "standardized": plain(lambda: Standardized(WIDTH, 24), nn.ReLU, lambda: Standardized(24, WIDTH), MIDDLE),
    "channel_layer_norm": framed(_norms(lambda: ChannelLayerNorm(WIDTH))),
    "own_norm": framed(_norms(OwnNorm)),
    "normalized_classifier": NormalizedClassifier,
    "noise": plain(MIDDLE, Noise, lambda: nn.Dropout(0.1), MIDDLE),
    "own_statistics": framed(_norms(MeanOnlyNorm)),
    "norm_without_affine": framed(_norms(lambda: nn.BatchNorm2d(WIDTH, affine=False))),
    "norm_of_the_batch": framed(_norms(lambda: nn.BatchNorm2d(WIDTH, track_running_stats=False))),
    "sync_batch_norm": framed(_norms(lambda: nn.SyncBatchNorm(WIDTH))),
    "local_response_norm": plain(MIDDLE, lambda: nn.LocalResponseNorm(3), MIDDLE),
}
