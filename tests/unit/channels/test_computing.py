"""Layers that compute with what they make of their weights: what is left computes what the formulas say."""

import copy

import torch
import torch.nn.functional as F
from kondense.artifacts.structure import apply_edits, find_edits
from kondense.channels.dependencies import find_dependencies
from kondense.channels.surgery import remove
from torch import nn

from tests.unit.channels.test_constructs import conv, network, pooled
from tests.unit.channels.test_statistics import GONE, IMAGES, KEPT, SHAPE, removed


class Standardized(nn.Conv2d):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, 3, bias=False)
        self.gain = nn.Parameter(torch.rand(outputs, 1, 1, 1) + 0.5)

    def forward(self, images_NCHW):
        spread, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(images_NCHW, self.gain * (self.weight - mean) / spread)


class Masked(nn.Conv2d):
    def __init__(self, inputs, outputs, groups=1, *, persistent=True):
        super().__init__(inputs, outputs, 3, groups=groups)
        mask = torch.ones_like(self.weight)
        mask[:, :, 1:] = 0
        self.register_buffer("mask", mask, persistent=persistent)

    def _conv_forward(self, images, weight, bias):
        return super()._conv_forward(images, weight * self.mask, bias)


class Coupled(nn.Conv2d):
    def forward(self, images_NCHW):
        return F.conv2d(images_NCHW, self.weight / self.weight.norm(), self.bias)


def followed_by(layer, outputs=8):
    return network(
        lambda net, x: net.fc(pooled(net.second(net.conv(x).relu()))),
        conv=conv(),
        second=layer,
        fc=nn.Linear(outputs, 4),
    )


def standardized(weight, gain):
    flat = weight.flatten(1)
    flat = (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)
    return gain * flat.view(weight.shape)


def test_a_standardised_layer_takes_its_mean_over_the_inputs_that_are_kept():
    net = followed_by(Standardized(16, 8))
    _, logits = removed(net)
    weight = standardized(net.second.weight[:, KEPT], net.second.gain)
    wanted = net.fc(pooled(F.conv2d(net.conv(IMAGES)[:, KEPT].relu(), weight)))
    torch.testing.assert_close(logits, wanted)
    assert find_dependencies(net, SHAPE).groups["conv"].statistics


def test_the_outputs_of_a_standardised_layer_take_their_gains_with_them():
    net = network(lambda net, x: net.fc(pooled(net.conv(x))), conv=Standardized(1, 16), fc=nn.Linear(16, 4))
    small, logits = removed(net)
    weight = standardized(net.conv.weight, net.conv.gain)[KEPT]
    torch.testing.assert_close(logits, F.linear(pooled(F.conv2d(IMAGES, weight)), net.fc.weight[:, KEPT], net.fc.bias))
    assert small.conv.gain.shape == (12, 1, 1, 1)


def test_edits_hold_the_shapes_of_a_layers_further_tensors():
    net = followed_by(Masked(16, 8))
    small, _ = removed(net)
    edits = find_edits(copy.deepcopy(net), small)
    assert edits["second"] == {"in_channels": 12, "tensors": {"mask": [8, 12, 3, 3]}}
    again = copy.deepcopy(net)
    apply_edits(again, edits)
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(IMAGES), small(IMAGES))


def test_the_groups_of_a_masked_convolution_lose_as_many_inputs_each():
    net = followed_by(Masked(16, 8, groups=4))
    small, logits = removed(net, gone=torch.tensor([2, 4, 11, 15]))
    kept = [[0, 1, 3], [1, 2, 3], [0, 1, 2], [0, 1, 2]]  # of each group of four
    maps_of = net.conv(IMAGES).relu().split(4, 1)
    weights = (net.second.weight * net.second.mask).split(2)
    parts = [F.conv2d(maps_of[part][:, four], weights[part][:, four]) for part, four in enumerate(kept)]
    wanted = net.fc(pooled(torch.cat(parts, 1) + net.second.bias[:, None, None]))
    torch.testing.assert_close(logits, wanted)
    assert small.second.mask.shape == (8, 3, 3, 3)


def test_outputs_that_depend_on_each_other_by_the_weight_stay():
    net = network(lambda net, x: net.fc(pooled(net.conv(x))), conv=Coupled(1, 16, 3), fc=nn.Linear(16, 4))
    found = find_dependencies(net, SHAPE)
    assert "conv" not in found.groups and "the outputs change" in found.whole["conv"]


def test_a_mask_that_is_not_saved_keeps_its_layer_whole():
    found = find_dependencies(followed_by(Masked(16, 8, persistent=False)), SHAPE)
    assert not found.groups and "the Model artifact cannot describe" in found.whole["conv"]


def test_a_weight_that_holds_every_input_several_times_loses_all_of_them():
    class Radial(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 16, 3))
            self.register_buffer("centres", torch.tensor([-1.0, 0.0, 1.0]))

        def forward(self, x):
            basis = torch.exp(-((x.unsqueeze(-1) - self.centres) ** 2))
            return F.linear(basis.flatten(1), self.weight.flatten(1))

    net = network(lambda net, x: net.kan(pooled(net.conv(x))), conv=conv(), kan=Radial())
    small = copy.deepcopy(net)
    groups = find_dependencies(small, SHAPE).groups
    remove(small, groups, {"conv": GONE})
    basis = torch.exp(-((pooled(net.conv(IMAGES)[:, KEPT]).unsqueeze(-1) - net.kan.centres) ** 2))
    torch.testing.assert_close(small(IMAGES), torch.einsum("nik,oik->no", basis, net.kan.weight[:, KEPT]))


def test_what_a_grouped_convolution_with_weights_of_no_layer_reads_stays_whole():
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(32, 4, 3, 3)), nn.Parameter(torch.randn(32))

        def forward(self, images_NCHW):
            return F.conv2d(images_NCHW, self.weight, self.bias, groups=4)

    found = find_dependencies(followed_by(Held(), outputs=32), SHAPE)
    assert "conv" not in found.groups and "a convolution whose weights are computed" in found.whole["conv"]
