import copy

import pytest
import torch
from kondense.channels.dependencies import find_groups, input_slices, weight_from_inputs
from kondense.channels.surgery import remove
from kondense.errors import InputError
from torch import nn

SHAPE = (1, 8, 8)


class Grouped(nn.Module):
    """A convolution in two groups, and a norm that the artifact cannot describe."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 8, 3, groups=2)
        self.second = nn.Conv2d(8, 32, 3)
        self.norm = nn.GroupNorm(4, 32)
        self.third = nn.Conv2d(32, 24, 3)
        self.fc = nn.Linear(24, 3)

    def forward(self, images_NCHW):
        hidden = self.grouped(self.first(images_NCHW).relu()).relu()
        return self.fc(self.third(self.norm(self.second(hidden)).relu()).mean((2, 3)))


class Shuffled(nn.Module):
    """Channels change places in a way that the trace takes for elementwise."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

    def forward(self, images_NCHW):
        hidden = self.first(images_NCHW).unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
        return self.fc(self.second(hidden).mean((2, 3)))


class Cut(nn.Module):
    """A layer behind which no gradient flows."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

    def forward(self, images_NCHW):
        return self.fc(self.second(self.first(images_NCHW).detach()).mean((2, 3)))


def images():
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2))


def test_channels_over_which_a_statistic_is_taken_are_told():
    groups = find_groups(Grouped(), SHAPE)
    assert {name: group.statistics for name, group in groups.items()} == {
        "first": False,
        "grouped": False,
        "second": True,
        "third": False,
    }
    assert groups["second"].blocks == 4


def test_a_convolution_in_groups_loses_as_many_channels_of_each():
    module = Grouped().eval()
    silent = copy.deepcopy(module)
    groups = find_groups(module, SHAPE)
    assert [groups[name].blocks for name in ("first", "grouped", "third")] == [2, 2, 1]
    scores = torch.tensor([5, 1, 2, 8, 9, 9, 9, 9, 3, 9, 9, 9, 9, 9, 9, 0]).float()
    removed = {"first": groups["first"].lowest(scores, 12), "grouped": torch.tensor([1, 6])}
    assert removed["first"].tolist() == [1, 2, 8, 15]
    remove(module, groups, removed)
    assert module.grouped.weight.shape == (6, 6, 3, 3)
    assert (module.grouped.in_channels, module.grouped.out_channels, module.grouped.groups) == (12, 6, 2)
    with torch.no_grad():
        for name, channels in removed.items():
            silent.get_submodule(name).weight[channels] = 0.0
            silent.get_submodule(name).bias[channels] = 0.0
    torch.testing.assert_close(module(images()), silent(images()))


def zeroed_equals_removed(module, groups, shape=SHAPE):
    """Remove half of every group's channels; the outputs must be those without their weights in the consumers."""
    removed = {name: group.lowest(torch.rand(group.channels), group.channels // 2) for name, group in groups.items()}
    silent = copy.deepcopy(module)
    with torch.no_grad():
        for name, channels in removed.items():
            for member in groups[name].members:
                if not member.output:
                    layer = silent.get_submodule(member.name)
                    slices = input_slices(layer.weight, getattr(layer, "groups", 1)).clone()
                    slices[member.entries[channels].flatten()] = 0.0
                    layer.weight.copy_(weight_from_inputs(slices, getattr(layer, "groups", 1)))
    small = copy.deepcopy(module)
    remove(small, groups, removed)
    batch = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(small(batch), silent(batch), rtol=1e-4, atol=1e-5)
    assert sum(map(torch.numel, small.parameters())) < sum(map(torch.numel, module.parameters()))
    return small


def test_reordered_channels_are_followed():
    module = Shuffled().eval()
    groups = find_groups(module, SHAPE)
    assert {name: group.channels for name, group in groups.items()} == {"first": 4, "second": 8}
    assert groups["first"].numbers == (("", "forward:4", 1),)  # the 4 of (2, 4)
    small = zeroed_equals_removed(module, groups)
    assert (small.first.out_channels, small.second.out_channels) == (4, 4)


def test_a_path_without_gradients_is_followed():
    assert set(find_groups(Cut(), SHAPE)) == {"first", "second"}


def test_a_network_that_does_not_run_is_named_with_the_last_layer_that_did():
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(7, 3))
    with pytest.raises(InputError, match=r"must run on images 1x8x8 to be traced, but the last layer that ran was '0'"):
        find_groups(module, SHAPE)


def test_frozen_parameters_are_traced_and_stay_frozen():
    module = Grouped().requires_grad_(False)
    groups = find_groups(module, SHAPE)
    remove(module, groups, {"third": torch.tensor([0])})
    assert set(groups) == {"first", "grouped", "second", "third"}
    assert not any(parameter.requires_grad for parameter in module.parameters())
