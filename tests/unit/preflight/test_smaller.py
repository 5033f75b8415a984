"""On which images a preflight tries a network, and that what they allow is what the real ones allow."""

import dataclasses

import pytest
import torch
from kondense.networks.build import NetworkSpec
from kondense.preflight import examine
from kondense.preflight.costs import StepCost
from kondense.preflight.images import random_dataset
from kondense.preflight.request import BENT, POSSIBLE, Check, Request, Step
from kondense.preflight.smaller import called, smaller_shape
from kondense.prune.config import PruneConfig
from kondense.train.config import TrainConfig
from torch import Tensor, nn


class Pooled(nn.Module):
    """Its last layer takes channels only, so that it runs on images of any size."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=4), nn.Conv2d(8, 8, 3, stride=4)
        self.last = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.second(self.first(images).relu()).relu().mean((2, 3)))


class Skipping(Pooled):
    """Leaves a layer out of small images."""

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images).relu()
        return self.last((self.second(values).relu() if images.shape[-1] > 64 else values).mean((2, 3)))


class Flat(nn.Module):
    """Takes images of one size."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.last = nn.Linear(3 * side * side, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(images.flatten(1))


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (Pooled(), (3, 224, 224), (3, 56, 56)),
        (Pooled(), (3, 96, 160), (3, 48, 80)),
        (Pooled(), (3, 64, 64), (3, 64, 64)),  # small enough
        (Skipping(), (3, 224, 224), (3, 112, 112)),
        (Skipping(), (3, 112, 112), (3, 112, 112)),
        (Flat(96), (3, 96, 96), (3, 96, 96)),
    ],
)
def test_images_are_as_small_as_leaves_the_calls_of_the_network(
    network: nn.Module, shape: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    network.train()
    assert smaller_shape(network, shape) == expected
    assert all(part.training for part in network.modules())


def test_calls_are_named_in_order() -> None:
    assert called(Pooled(), (3, 32, 32)) == [("first", 4), ("second", 4), ("last", 2), ("", 2)]
    assert called(Flat(8), (3, 9, 9)) is None


class Late(nn.Module):
    """A fully connected head whose MACs weigh more, the smaller the images."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, stride=2)
        self.pool, self.hidden, self.last = nn.AdaptiveAvgPool2d(4), nn.Linear(128, 2000), nn.Linear(2000, classes)

    def forward(self, images: Tensor) -> Tensor:
        values = self.pool(self.second(self.first(images).relu()))
        return self.last(self.hidden(values.flatten(1)).relu())


def late(classes: int, channels: int, image_size: int) -> Late:
    return Late(classes)


def test_what_only_small_images_allow_is_lowered_to_what_the_real_ones_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    # Widths divisible by 8 leave the convolutions whole: what is possible is the share of the fully connected layers.
    config = PruneConfig(sparsity=0.4, round_to=8, epochs=1)
    step = Step("prune", "prune", "prune", config.to_dict())
    dataset, train = random_dataset((3, 96, 96), 3), TrainConfig(network=f"{__name__}:late")
    teacher = examine.with_lineage(train, examine.train(None, dataset, examine.quick(train)), dataset)
    estimator = examine.Estimator(examine.RunImages(dataset.shape, None), dataset)
    small = examine.smaller(teacher, dataset, estimator)
    assert small.shape == (3, 48, 48)
    assert examine.try_step(step, teacher, teacher, small).fields["state"] == POSSIBLE
    check = examine.try_on_small(step, teacher, teacher, (small, dataset), estimator)
    assert check.fields["state"] == BENT
    assert check.fields["changes"]["prune"]["sparsity"] < 0.4


def test_a_step_that_only_small_images_refuse_is_tried_on_the_real_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[int] = []
    attempt = examine.attempt

    def refusing(step, config, model, teacher, dataset):
        shapes.append(dataset.shape[1])
        if dataset.shape[1] < 100:
            raise examine.InputError("too small.")
        return attempt(step, config, model, teacher, dataset)

    monkeypatch.setattr(examine, "attempt", refusing)
    step = Step("prune", "prune", "prune", PruneConfig(method="magnitude", epochs=1).to_dict())
    data = {"dataset_name": "digits", "image_size": 112, "channels": 3}
    request = Request({**examine.DataPrepConfig(**data).to_dict()}, _train(), {"pruned": [step]})
    checks: dict[str, Check] = {check.name: check for check in examine.examine(request)}
    assert checks["prune"].state == POSSIBLE
    assert shapes == [56, 112]


def _train() -> dict[str, object]:
    return TrainConfig(network=f"{__name__}:pooled").to_dict()


def pooled(classes: int, channels: int, image_size: int) -> Pooled:
    return Pooled(classes)


def test_the_figures_of_small_images_are_enlarged() -> None:
    cost = StepCost(seconds=0.5, forward_s=0.25, saved_bytes=100, largest_bytes=10, state_bytes=7)
    expected = dataclasses.replace(cost, seconds=4.0, forward_s=2.0, saved_bytes=1600, largest_bytes=160)
    assert cost.scaled(8.0, 16.0) == expected
    torch.manual_seed(0)
    dataset = random_dataset((3, 224, 224), 3)
    estimator = examine.Estimator(examine.RunImages(dataset.shape, None), dataset)
    teacher = examine.Model(Pooled(), NetworkSpec("lenet5", {}))
    examine.smaller(teacher, dataset, estimator)
    assert estimator.factors[1] == 16.0
    with estimator.enlarged():
        assert estimator.scale == estimator.factors
    assert estimator.scale == (1.0, 1.0)
