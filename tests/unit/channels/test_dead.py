"""Channels that do not matter are found, and leave without a change of the logits; all others stay."""

import pytest
import torch
import torch.nn.functional as F
from kondense.channels.dead import dead_channels, fold_constants
from kondense.channels.dependencies import find_groups
from kondense.channels.surgery import remove
from kondense.networks.build import NetworkSpec, build
from torch import Tensor, nn

SHAPE = (1, 16, 16)
IMAGES = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 6, 3, padding=1)
        self.next = nn.Conv2d(6, 5, 3, padding=1)
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.stem(images))
        x = F.relu(x + self.inner(x))
        return self.head(F.relu(self.next(x)).mean((2, 3)))


def trimmed(module: nn.Module) -> dict[str, int]:
    """Take the dead channels out once and return how many of each group."""
    groups = find_groups(module, SHAPE)
    dead = dead_channels(module, groups, IMAGES)
    remove(module, groups, dead)
    return {name: len(channels) for name, channels in dead.items()}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(NetworkSpec(name, {"classes": 10, "channels": 1, "image_size": 16})).eval()


@pytest.mark.parametrize("name", ["lenet5", "lenet300", "resnet8", "mobilenet_small"])
def test_a_network_without_zeros_loses_nothing(name: str) -> None:
    assert trimmed(network(name)) == {}


@torch.no_grad()
def test_unread_channels_leave() -> None:
    module = network("lenet5")
    module.get_parameter("conv2.weight")[:, 3:7] = 0.0
    module.get_parameter("fc2.weight")[:, :40] = 0.0
    before = module(IMAGES)
    assert trimmed(module) == {"conv1": 4, "fc1": 40}
    torch.testing.assert_close(module(IMAGES), before)


@torch.no_grad()
def test_of_channels_without_weights_those_that_are_zero_leave() -> None:
    module = network("lenet5")
    module.get_parameter("conv1.weight")[:6] = 0.0
    module.get_parameter("conv1.bias")[:6] = torch.tensor([-1.0, -0.5, 0.0, 0.1, 0.5, 1.0])
    before = module(IMAGES)
    assert trimmed(module) == {"conv1": 3}
    torch.testing.assert_close(module(IMAGES), before)


@torch.no_grad()
def test_what_a_channel_always_is_goes_into_biases_and_it_leaves() -> None:
    module = network("lenet5")
    module.get_parameter("conv1.weight")[:6] = 0.0
    module.get_parameter("conv1.bias")[:6] = 1.0
    module.get_parameter("fc1.weight")[10:30] = 0.0
    before = module(IMAGES)
    assert fold_constants(module, find_groups(module, SHAPE), IMAGES) == {"conv2", "fc2"}
    torch.testing.assert_close(module(IMAGES), before, rtol=1e-4, atol=1e-5)
    assert trimmed(module) == {"conv1": 6, "fc1": 20}
    torch.testing.assert_close(module(IMAGES), before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_constant_that_meets_padding_stays() -> None:
    torch.manual_seed(0)
    module = Residual().eval()
    module.next.weight[2] = 0.0
    module.next.bias[2] = 1.0  # constant, and read by the head: goes into its bias
    for layer in (module.stem, module.inner):
        layer.weight[4] = 0.0
        layer.bias[4] = 1.0  # constant, but the next convolutions pad with zeros
    before = module(IMAGES)
    assert fold_constants(module, find_groups(module, SHAPE), IMAGES) == {"head"}
    assert trimmed(module) == {"next": 1}
    torch.testing.assert_close(module(IMAGES), before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_channel_that_a_shortcut_feeds_is_not_dead_before_both_sides_are_zero() -> None:
    torch.manual_seed(0)
    module = Residual().eval()
    module.inner.weight[2] = 0.0
    module.inner.bias[2] = 0.0
    assert trimmed(module) == {}
    module.stem.weight[2] = 0.0
    module.stem.bias[2] = 0.0
    before = module(IMAGES)
    assert list(trimmed(module).values()) == [1]
    torch.testing.assert_close(module(IMAGES), before)


@torch.no_grad()
def test_one_channel_stays_where_all_are_dead() -> None:
    module = network("lenet300")
    module.get_parameter("fc2.weight").zero_()
    before = module(IMAGES)
    assert trimmed(module)["fc1"] == 299
    torch.testing.assert_close(module(IMAGES), before)
