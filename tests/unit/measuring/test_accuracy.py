"""Predictions on a split, in the memory format in which large images run fastest."""

import pytest
import torch
from kondense.data.dataset import Dataset
from kondense.measuring.accuracy import MANY, predict
from kondense.measuring.memory_format import memory_format_of
from torch import Tensor, nn


class Format(nn.Identity):
    """Notes the memory format of what passes."""

    def forward(self, images: Tensor) -> Tensor:
        self.last = images.is_contiguous(memory_format=torch.channels_last)
        return images


class ByView(nn.Module):
    """Fails on images in channels_last."""

    def forward(self, images: Tensor) -> Tensor:
        return images.view(len(images), -1)


def dataset(count: int, side: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    split = (pixels, torch.arange(count) % 2)
    return Dataset.from_arrays(train=split, validation=split, test=split, classes=["a", "b"])


@pytest.mark.parametrize(
    ("count", "side", "flat", "last"),
    [
        (MANY, 80, nn.Flatten(), True),
        (MANY, 20, nn.Flatten(), False),
        (MANY - 1, 80, nn.Flatten(), False),
        (MANY, 80, ByView(), False),
    ],
)
def test_many_large_images_run_in_channels_last_where_the_network_takes_it(
    count: int, side: int, flat: nn.Module, last: bool
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), Format(), flat, nn.LazyLinear(2)).train()
    images = dataset(count, side)
    module(images.normalise(images.test.images[:2]))
    logits_NK = predict(module, images.test, images)
    assert module[1].last is last
    assert module.training
    assert memory_format_of(module) is torch.contiguous_format
    with torch.no_grad():
        expected_NK = module(images.normalise(images.test.images))
    assert torch.allclose(logits_NK, expected_NK, atol=1e-5)


def test_a_network_in_channels_last_stays_in_it() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 5), Format(), nn.Flatten(), nn.LazyLinear(2))
    images = dataset(MANY, 80)
    module(images.normalise(images.test.images[:2]))
    module = module.to(memory_format=torch.channels_last)
    predict(module, images.test, images)
    assert module[1].last
    assert memory_format_of(module) is torch.channels_last
