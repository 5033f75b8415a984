"""Networks with other outputs than logits, several heads, or other inputs than the images as they come."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo.parts.frames import WIDTH, conv, framed


class DictOutput(nn.Module):
    """Returns a dictionary."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = framed(lambda: conv(WIDTH, WIDTH))(classes, channels, image_size)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.body(x)}


class TupleOutput(DictOutput):
    """Returns the logits and the images' mean."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
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


class Answer(NamedTuple):
    """What a network returns, by name."""

    logits: Tensor
    features: Tensor


class NamedOutput(DictOutput):
    """Returns a named tuple."""

    def forward(self, x: Tensor) -> Answer:
        return Answer(self.body(x), x.mean((2, 3)))


class OrderedOutput(DictOutput):
    """Returns an ordered dictionary with the name that torchvision's segmentation models give."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return OrderedDict(out=self.body(x))


class ManyHeads(nn.Module):
    """The mean of several heads, of which one has a norm, a dropout and two layers."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24, stride=2), nn.Flatten(2))
        deep = nn.Sequential(nn.Linear(24, 32), nn.BatchNorm1d(32), nn.SELU(), nn.AlphaDropout(0.1))
        self.heads = nn.ModuleList([nn.Linear(24, classes), nn.Sequential(deep, nn.Linear(32, classes))])

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).mean(-1)
        return torch.stack([head(x) for head in self.heads], -1).mean(-1)


class ConvolutionalHead(nn.Module):
    """Classifies every place by a convolution and pools the logits, as SqueezeNet does."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, WIDTH, stride=2), conv(WIDTH, 24))
        self.head = nn.Conv2d(24, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.squeeze(F.adaptive_avg_pool2d(self.head(self.body(x)), (1, 1)), (2, 3))


class WithAutocast(nn.Module):
    """Computes a part in bfloat16, while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.training):
            x = self.first(x)
        return self.last(x.float())


class Normalizes(nn.Module):
    """Standardises the images itself, by buffers, and scales them to another size."""

    def __init__(self, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 0.1))
        self.register_buffer("deviation", torch.full((1, channels, 1, 1), 0.5))
        self.body = framed(lambda: conv(WIDTH, WIDTH))(classes, channels, image_size)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate((x - self.mean) / self.deviation, size=(20, 20), mode="bicubic", align_corners=False)
        return self.body(x)


CONSTRUCTS: dict[str, Callable[..., nn.Module]] = {
    "dict_output": DictOutput,
    "tuple_output": TupleOutput,
    "auxiliary_head": AuxiliaryHead,
    "named_output": NamedOutput,
    "ordered_output": OrderedOutput,
    "many_heads": ManyHeads,
    "convolutional_head": ConvolutionalHead,
    "autocast": framed(WithAutocast),
    "own_normalization": Normalizes,
}
