"""Auxiliary heads leave a network once it is trained, unless something else needs them."""

import pytest
import torch
from kondense.artifacts.model import load_model, save_model
from kondense.distill.config import DistillConfig
from kondense.distill.stage import distill
from kondense.networks.allowed import allowing
from kondense.networks.outputs import with_logits
from kondense.train.config import TrainConfig
from kondense.train.stage import train
from kondense.training.auxiliary import drop_auxiliary
from torch import Tensor, nn

from tests.support.toy_training import toy_dataset

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
QUICK = {"epochs": 1, "batch_size": 64, "device": "cpu"}


class Net(nn.Module):
    """A convolution, a head, and an auxiliary head behind the convolution."""

    def __init__(self, classes: int = 3, channels: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, padding=1)
        self.aux = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes))
        self.head = nn.Linear(8, classes)

    def pooled(self, images: Tensor) -> Tensor:
        return self.stem(images).relu().mean((2, 3))

    def forward(self, images: Tensor):
        pooled = self.pooled(images)
        return (self.head(pooled), self.aux(pooled)) if self.training else self.head(pooled)


class Always(Net):
    """Returns both in evaluation mode, too."""

    def forward(self, images: Tensor):
        pooled = self.pooled(images)
        return {"aux": self.aux(pooled), "logits": self.head(pooled)}


class Shaped(Net):
    """Cannot be trained without the head: it asks for the shape of its output."""

    def forward(self, images: Tensor):
        pooled = self.pooled(images)
        if self.training:
            aux = self.aux(pooled)
            assert aux.shape[1] == 3
            return self.head(pooled), aux
        return self.head(pooled)


class Borrowed(Net):
    """Evaluation uses a weight of the auxiliary head."""

    def forward(self, images: Tensor):
        pooled = self.pooled(images)
        logits = self.head(pooled) + self.aux[3].bias.detach()
        return (logits, self.aux(pooled)) if self.training else logits


class Averaged(Net):
    """Evaluation averages both heads."""

    def forward(self, images: Tensor):
        pooled = self.pooled(images)
        both = (self.head(pooled), self.aux(pooled))
        return both if self.training else (both[0] + both[1]) / 2


class Frozen(Net):
    """The stem is not trained."""

    def __init__(self, classes: int = 3, channels: int = 1) -> None:
        super().__init__(classes, channels)
        self.stem.requires_grad_(False)


def make(classes: int, channels: int, image_size: int) -> Net:
    return Net(classes, channels)


@pytest.mark.parametrize("kind", [Net, Always, Frozen])
def test_a_head_that_evaluation_does_not_need_is_dropped(kind: type[Net]) -> None:
    module = with_logits(kind(), classes=3).eval()
    module.aux[3].bias.data += 0.5
    expected, trainable = module(IMAGES), {name: each.requires_grad for name, each in module.named_parameters()}
    assert drop_auxiliary(module, IMAGES, 3) == ["aux"]
    assert torch.equal(module(IMAGES), expected)
    assert {*module.state_dict()} == {"stem.weight", "stem.bias", "head.weight", "head.bias"}
    assert all(each.requires_grad == trainable[name] for name, each in module.named_parameters())
    assert drop_auxiliary(module, IMAGES, 3) == []


@pytest.mark.parametrize("kind", [Shaped, Borrowed, Averaged])
def test_a_head_that_is_needed_stays(kind: type[Net]) -> None:
    module = with_logits(kind(), classes=3).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert drop_auxiliary(module, IMAGES, 3) == []
    assert {*module.state_dict()} == {*before}
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


def test_trained_and_distilled_networks_are_stored_and_trained_on_without_their_heads(tmp_path) -> None:
    dataset = toy_dataset()
    made = train(None, dataset, TrainConfig(network=f"{__name__}:make", **QUICK))
    assert made.metrics["parameters"] == 8 * 9 + 8 + 8 * 3 + 3
    save_model(tmp_path / "model", made.model)
    with allowing(networks=[f"{__name__}:make"]):
        loaded = load_model(tmp_path / "model")
    images = dataset.normalise(dataset.test.images[:5])
    assert torch.equal(loaded.module(images), made.model.module(images))
    again = train(loaded, dataset, TrainConfig(network=f"{__name__}:make", **QUICK))
    assert again.metrics["parameters"] == made.metrics["parameters"]
    student = distill(None, dataset, DistillConfig(width=0.5, **QUICK), teachers={"teacher": loaded})
    assert student.metrics["parameters"] == 4 * 9 + 4 + 4 * 3 + 3
