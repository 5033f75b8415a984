"""A MobileNetV2-style network for small images. Images [N, C, H, W] -> logits [N, classes].

Source: Sandler et al. 2018, section 3. Deviation: fewer and narrower blocks, a stem of stride 1.
"""

from torch import Tensor, nn

from kondense.networks.lenet import scaled

# (expansion, channels, stride) of each block.
BLOCKS = ((1, 16, 1), (4, 24, 2), (4, 24, 1), (4, 40, 2), (4, 40, 1), (4, 64, 2))


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1; a shortcut where shapes allow it."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = nn.Sequential(nn.Conv2d(channels_in, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()
        )
        self.project = nn.Sequential(nn.Conv2d(hidden, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the block's output, [N, channels_out, H / stride, W / stride]."""
        output_NCHW = self.project(self.depthwise(self.expand(images_NCHW)))
        return images_NCHW + output_NCHW if self.residual else output_NCHW


class MobileNet(nn.Module):
    """A stem, inverted residuals, a 1x1 head, global average pooling and a classifier."""

    def __init__(self, classes: int, channels: int, width: float) -> None:
        super().__init__()
        first, head = scaled(16, width), scaled(128, width)
        self.stem = nn.Sequential(nn.Conv2d(channels, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        blocks = []
        channels_in = first
        for expansion, block_channels, stride in BLOCKS:
            channels_out = scaled(block_channels, width)
            blocks.append(InvertedResidual(channels_in, channels_out, expansion, stride))
            channels_in = channels_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.Conv2d(channels_in, head, 1, bias=False), nn.BatchNorm2d(head), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(head, classes)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the logits, [N, classes]."""
        return self.fc(self.flatten(self.pool(self.head(self.blocks(self.stem(images_NCHW))))))


def mobilenet_small(classes: int, channels: int, image_size: int, width: float = 1.0) -> MobileNet:
    """Build the MobileNetV2-style network."""
    return MobileNet(classes, channels, width)
