"""A network of one's own, in a file of its own so that a saved model can name it."""

import torch
from torch import Tensor, nn


class SmallNet(nn.Module):
    """A small convolutional network for images of 8x8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(32 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, 10] of images [N, 1, 8, 8]."""
        return self.head(torch.flatten(self.body(self.stem(images)), 1))
