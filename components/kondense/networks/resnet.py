"""Residual networks for small images. Images [N, C, H, W] -> logits [N, classes].

Source: He et al. 2015, section 4.2 (CIFAR). Deviations: projection shortcuts (option B), and a stem of
stride 2 for ResNet-8, which quarters its MACs at 28 pixels.
"""

from torch import Tensor, nn

from kondense.networks.lenet import scaled


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels_in == channels_out
            else nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        )
        self.relu2 = nn.ReLU()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the block's output, [N, channels_out, H / stride, W / stride]."""
        hidden_NCHW = self.relu1(self.bn1(self.conv1(images_NCHW)))
        return self.relu2(self.bn2(self.conv2(hidden_NCHW)) + self.shortcut(images_NCHW))


class ResNet(nn.Module):
    """A stem, three groups of blocks, global average pooling and a classifier."""

    def __init__(
        self, classes: int, channels: int, widths: tuple[int, int, int], blocks: int, stem_stride: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        groups = []
        channels_in = widths[0]
        for index, channels_out in enumerate(widths):
            for block in range(blocks):
                groups.append(Block(channels_in, channels_out, 2 if index and not block else 1))
                channels_in = channels_out
        self.blocks = nn.Sequential(*groups)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels_in, classes)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the logits, [N, classes]."""
        hidden_NCHW = self.blocks(self.relu(self.bn1(self.conv1(images_NCHW))))
        return self.fc(self.flatten(self.pool(hidden_NCHW)))


def _widths(width: float) -> tuple[int, int, int]:
    return scaled(16, width), scaled(32, width), scaled(64, width)


def resnet8(classes: int, channels: int, image_size: int, width: float = 1.0) -> ResNet:
    """Build ResNet-8 with a stride-2 stem: 77,754 parameters and 2.55M MACs at 1x28x28 and 10 classes."""
    return ResNet(classes, channels, _widths(width), blocks=1, stem_stride=2)


def resnet20(classes: int, channels: int, image_size: int, width: float = 1.0) -> ResNet:
    """Build ResNet-20 of He et al. 2015 (CIFAR)."""
    return ResNet(classes, channels, _widths(width), blocks=3, stem_stride=1)


def resnet56(classes: int, channels: int, image_size: int, width: float = 1.0) -> ResNet:
    """Build ResNet-56 of He et al. 2015 (CIFAR)."""
    return ResNet(classes, channels, _widths(width), blocks=9, stem_stride=1)
