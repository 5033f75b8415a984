"""Channels over which a network takes statistics, its own tensors, recurrent layers, numbers among its attributes.

What is left must compute what the formulas say, written out here for the channels that are kept.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from kondense.channels.dependencies import find_dependencies
from kondense.channels.surgery import remove
from torch import nn

from tests.unit.channels.test_constructs import conv, network, pooled

SHAPE = (1, 8, 8)
KEPT = torch.tensor([0, 1, 3, 5, 6, 8, 9, 10, 12, 13, 14, 15])
GONE = torch.tensor([2, 4, 7, 11])  # one of every four, as norms in groups need
IMAGES = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(3))


def removed(module, name="conv", gone=GONE):
    """Return the network without some channels, which the search for groups found to be sound."""
    small = copy.deepcopy(module)
    found = find_dependencies(small, SHAPE)
    assert name in found.groups, found.whole
    remove(small, found.groups, {name: gone})
    with torch.no_grad():
        return small, small.eval()(IMAGES)


def maps(module):
    return module.conv(IMAGES)[:, KEPT]


def head(module, features):
    return F.linear(features, module.fc.weight[:, KEPT], module.fc.bias)


def channels_last(module, images):
    return module.fc(pooled(module.norm(module.conv(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))


def root_mean_square(module, images):
    values = module.conv(images)
    scale = torch.rsqrt(values.pow(2).mean(1, keepdim=True) + 1e-6)
    return module.fc(pooled(values * scale * module.weight[:, None, None]))


def wanted_layer_norm(module):
    values = maps(module).permute(0, 2, 3, 1)
    values = (values - values.mean(-1, keepdim=True)) / (values.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    return head(module, (values * module.norm.weight[KEPT] + module.norm.bias[KEPT]).mean((1, 2)))


def wanted_group_norm(module):
    values = maps(module).unflatten(1, (4, 3))
    values = (values - values.mean((2, 3, 4), keepdim=True)) / (
        values.var((2, 3, 4), keepdim=True, correction=0) + 1e-5
    ).sqrt()
    scaled = values.flatten(1, 2) * module.norm.weight[KEPT, None, None] + module.norm.bias[KEPT, None, None]
    return head(module, pooled(scaled))


def wanted_root_mean_square(module):
    values = maps(module)
    values = values / (values.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
    return head(module, pooled(values * module.weight[KEPT, None, None]))


def noisy(norm):
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def with_weight(module, shape=(16,)):
    module.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(5)))
    return module


NETWORKS = {
    "layer norm": (
        network(channels_last, conv=conv(), norm=noisy(nn.LayerNorm(16)), fc=nn.Linear(16, 4)),
        wanted_layer_norm,
    ),
    "norm in groups": (
        network(
            lambda net, x: net.fc(pooled(net.norm(net.conv(x)))),
            **{"conv": conv(), "norm": noisy(nn.GroupNorm(4, 16)), "fc": nn.Linear(16, 4)},
        ),
        wanted_group_norm,
    ),
    "norm written out": (
        with_weight(network(root_mean_square, conv=conv(), fc=nn.Linear(16, 4))),
        wanted_root_mean_square,
    ),
    "unit length": (
        network(lambda net, x: net.fc(F.normalize(pooled(net.conv(x)))), conv=conv(), fc=nn.Linear(16, 4)),
        lambda net: head(net, pooled(maps(net)) / pooled(maps(net)).pow(2).sum(1, keepdim=True).sqrt()),
    ),
    "softmax over channels": (
        network(lambda net, x: net.fc(pooled(net.conv(x)).softmax(1)), conv=conv(), fc=nn.Linear(16, 4)),
        lambda net: head(net, pooled(maps(net)).exp() / pooled(maps(net)).exp().sum(1, keepdim=True)),
    ),
    "mean over channels as a map": (
        network(
            lambda net, x: net.fc(pooled(net.conv(x) * net.conv(x).mean(1, keepdim=True).sigmoid())),
            **{"conv": conv(), "fc": nn.Linear(16, 4)},
        ),
        lambda net: head(net, pooled(maps(net) * maps(net).mean(1, keepdim=True).sigmoid())),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_statistic_is_that_of_the_channels_that_are_kept(name):
    module, wanted = NETWORKS[name]
    with torch.no_grad():
        _, got = removed(module)
        torch.testing.assert_close(got, wanted(module))
    assert find_dependencies(module, SHAPE).groups["conv"].statistics


def class_token(module, images):
    tokens = module.conv(images).flatten(2).mT
    tokens = torch.cat([module.token.expand(len(images), -1, -1), tokens], 1)
    return module.fc((tokens + module.positions[:, : tokens.shape[1]] + module.table.weight[1]).mean(1))


def test_tensors_of_the_network_lose_the_channels_that_meet_them():
    module = network(class_token, conv=conv(), table=nn.Embedding(3, 16), fc=nn.Linear(16, 4))
    module.token, module.positions = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 40, 16))
    small, got = removed(module)
    assert (small.token.shape, small.positions.shape) == ((1, 1, 12), (1, 40, 12))
    assert (small.table.weight.shape, small.table.embedding_dim) == ((3, 12), 12)
    with torch.no_grad():
        rows = torch.cat([module.token[..., KEPT].expand(3, -1, -1), maps(module).flatten(2).mT], 1)
        rows = rows + module.positions[:, :37, KEPT] + module.table.weight[1, KEPT]
        torch.testing.assert_close(got, head(module, rows.mean(1)))
    assert not find_dependencies(module, SHAPE).groups["conv"].statistics


def test_a_weight_that_the_network_holds_itself_is_read_without_the_channels():
    module = with_weight(
        network(lambda net, x: net.fc(pooled(F.conv2d(net.conv(x), net.weight))), conv=conv(), fc=nn.Linear(6, 4)),
        (6, 16, 3, 3),
    )
    small, got = removed(module)
    assert small.weight.shape == (6, 12, 3, 3)
    with torch.no_grad():
        torch.testing.assert_close(got, module.fc(pooled(F.conv2d(maps(module), module.weight[:, KEPT]))))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_hidden_units_and_inputs_of_recurrent_layers_go(kind):
    rows = kind(16, 10, 2, bidirectional=True, batch_first=True)
    module = network(
        lambda net, x: net.fc(net.rows(net.conv(x).mean(3).mT)[0][:, -1]), conv=conv(), rows=rows, fc=nn.Linear(20, 4)
    )
    small, got = removed(module, gone=torch.tensor([], dtype=torch.long))
    found = find_dependencies(small, SHAPE)
    remove(small, found.groups, {"conv": GONE, "rows": torch.tensor([0, 4, 9])})
    assert (small.rows.input_size, small.rows.hidden_size) == (12, 7)
    silent = copy.deepcopy(module)
    with torch.no_grad():  # nothing reads the units and channels that are gone
        for name, weight in silent.rows.named_parameters():
            if name.startswith("weight_hh"):
                weight[:, [0, 4, 9]] = 0.0
            elif name.startswith("weight_ih_l0"):
                weight[:, GONE] = 0.0
            elif name.startswith("weight_ih"):
                weight[:, [0, 4, 9, 10, 14, 19]] = 0.0
        silent.fc.weight[:, [0, 4, 9, 10, 14, 19]] = 0.0
        torch.testing.assert_close(small.eval()(IMAGES), silent.eval()(IMAGES))


def test_a_number_among_the_attributes_follows_the_channels():
    module = network(
        lambda net, x: net.fc(net.conv(x).reshape(-1, net.width, 36).mean(2)), conv=conv(), fc=nn.Linear(16, 4)
    )
    module.width, module.other = 16, 36
    small, got = removed(module)
    assert (small.width, small.other) == (12, 36)
    with torch.no_grad():
        torch.testing.assert_close(got, head(module, maps(module).mean((2, 3))))


class Relative(nn.Module):
    """A table of the network's own is read at places that a buffer of its own names, as windows of attention do."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 16, 3), nn.Linear(16, 4)
        self.table = nn.Parameter(torch.randn(11, 1))
        self.register_buffer("places", torch.arange(36).reshape(6, 6) % 11)

    def forward(self, images_NCHW):
        bias_HW = self.table[self.places.view(-1)].view(6, 6)
        return self.fc(pooled(self.conv(images_NCHW) * bias_HW))


def test_a_table_that_a_buffer_indexes_is_followed():
    torch.manual_seed(0)
    module = Relative().eval()
    small, logits = removed(module)
    values = maps(module) * module.table.detach()[torch.arange(36) % 11].view(6, 6)
    torch.testing.assert_close(logits, head(module, values.mean((2, 3))))
    assert small.conv.out_channels == len(KEPT)
