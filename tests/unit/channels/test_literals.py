"""Channels whose number is written in the code of the network go, and the number with them."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from kondense.artifacts.structure import apply_edits, find_edits
from kondense.channels.dependencies import find_dependencies
from kondense.channels.surgery import remove
from torch import nn

from tests.unit.channels.test_constructs import conv, network, pooled
from tests.unit.channels.test_statistics import IMAGES, KEPT, SHAPE, removed


def flattened(net, images):
    return net.fc(net.conv(images).view(-1, 16 * 6 * 6))


def both(net, images):
    return net.fc(net.conv(images).reshape(-1, 16, 36).mean(2).view(-1, 16))


class Flattens(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 16, 3), nn.Linear(16 * 36, 4)

    def forward(self, images_NCHW):
        return self.fc(self.conv(images_NCHW).relu().view(-1, 16 * 6 * 6))


class SplitsByNumber(nn.Module):
    """The number of parts is in the code, and so is the length of one."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 16, 3), nn.Linear(8, 4)

    def forward(self, images_NCHW):
        first, second = torch.split(self.conv(images_NCHW), 8, 1)
        return self.fc((first * second.sigmoid()).mean((2, 3)))


class SixteenTwice(nn.Module):
    """One number is a count of channels, and of places."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 16, 5), nn.Linear(16, 4)

    def forward(self, images_NCHW):
        return self.fc(self.conv(images_NCHW).reshape(-1, 16, 16).mean(2))


def made(kind):
    torch.manual_seed(0)
    return kind().eval()


def test_a_flatten_by_a_product_in_the_code_follows():
    net = made(Flattens)
    small, logits = removed(net)
    weight = net.fc.weight.unflatten(1, (16, 36))[:, KEPT].flatten(1)
    torch.testing.assert_close(logits, F.linear(net.conv(IMAGES)[:, KEPT].relu().flatten(1), weight, net.fc.bias))
    assert find_dependencies(net, SHAPE).groups["conv"].numbers == (("", "forward:576", 36),)
    assert find_dependencies(small, SHAPE).groups["conv"].numbers == (("", "forward:576", 36),)


def test_channels_go_from_a_network_whose_code_was_lowered_before():
    net = made(Flattens)
    small, _ = removed(net)
    smaller, logits = removed(small, gone=torch.tensor([0, 11]))
    kept = KEPT[torch.arange(1, 11)]
    weight = net.fc.weight.unflatten(1, (16, 36))[:, kept].flatten(1)
    torch.testing.assert_close(logits, F.linear(net.conv(IMAGES)[:, kept].relu().flatten(1), weight, net.fc.bias))
    assert smaller.fc.in_features == 360


def test_the_length_of_a_part_in_the_code_follows():
    net = made(SplitsByNumber)
    groups = find_dependencies(net, SHAPE).groups
    assert groups["conv"].channels == 8
    small = copy.deepcopy(net)
    remove(small, groups, {"conv": torch.tensor([1, 6])})
    kept = [0, 2, 3, 4, 5, 7]
    maps = net.conv(IMAGES)
    wanted = pooled(maps[:, :8] * maps[:, 8:].sigmoid())[:, kept]
    torch.testing.assert_close(small(IMAGES), F.linear(wanted, net.fc.weight[:, kept], net.fc.bias))


def test_a_number_with_two_meanings_keeps_its_channels_whole():
    found = find_dependencies(made(SixteenTwice), SHAPE)
    assert not found.groups and "written in its code" in found.whole["conv"]


@pytest.mark.parametrize("forward", [flattened, both])
def test_numbers_in_functions_outside_of_the_network_keep_channels_whole(forward):
    net = network(forward, conv=conv(), fc=nn.Linear(576 if forward is flattened else 16, 4))
    assert "conv" in find_dependencies(net, SHAPE).whole


class Heads(nn.Module):
    """Attention whose heads have lengths from those of the tokens and from a number in the code."""

    def __init__(self, literal):
        super().__init__()
        self.heads, self.literal = 4, literal
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, tokens):
        batch, count, width = tokens.shape
        if self.literal:
            q, k, v = self.qkv(tokens).reshape(batch, count, 3, 4, 8).unbind(2)
        else:
            q, k, v = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads).unbind(2)
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.out(mixed.transpose(1, 2).flatten(2))


class Blocks(nn.Module):
    def __init__(self, literals):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(1, 32, 4, 4), nn.Linear(32, 4)
        self.blocks = nn.ModuleList([Heads(literal) for literal in literals])

    def forward(self, images_NCHW):
        tokens = self.stem(images_NCHW).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return self.fc(tokens.mean(1))


def examined(literal, count):
    """Return how often a network of blocks that are alike runs until its groups are found, and what is found."""
    torch.manual_seed(0)
    module, runs = Blocks([literal] * count).eval(), []
    module.stem.register_forward_pre_hook(lambda *_: runs.append(1))
    found = find_dependencies(module, SHAPE)
    return len(runs), found


def test_forms_of_blocks_that_are_alike_are_tried_once():
    (four, _), (eight, found) = examined(False, 4), examined(False, 8)
    assert eight - four <= 4
    assert not found.groups
    assert {found.whole[f"blocks.{number}.qkv"] for number in range(8)} == {found.whole["stem"]}


def test_all_blocks_that_are_alike_are_mended():
    (four, _), (eight, found) = examined(True, 4), examined(True, 8)
    assert eight - four <= 4 * 3
    assert [found.groups[f"blocks.{number}.qkv"].numbers for number in range(8)] == [
        ((f"blocks.{number}", "forward:4", 1),) for number in range(8)
    ]


HIDDEN, SIDE = 16, 6


class ByConstant(Flattens):
    def forward(self, images_NCHW):
        return self.fc(self.conv(images_NCHW).relu().view(-1, HIDDEN * SIDE * SIDE))


class ByConfig(Flattens):
    """Holds its sizes in an object, of which its parts know the same one, and another number that is equal."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(hidden=16, patch=16)

    def forward(self, images_NCHW):
        assert self.config.patch == 16
        return self.fc(self.conv(images_NCHW).relu().view(-1, self.config.hidden * 36))


class ByClass(Flattens):
    hidden = 16

    def forward(self, images_NCHW):
        return self.fc(self.conv(images_NCHW).relu().view(-1, self.hidden * 36))


class BySizes(Flattens):
    def __init__(self):
        super().__init__()
        self.sizes = {"maps": 16, "side": 6}
        self.grid = (6, 16, 6)

    def forward(self, images_NCHW):
        maps = self.conv(images_NCHW).relu()
        maps = maps.permute(0, 2, 1, 3).reshape(-1, *self.grid).transpose(1, 2)
        return self.fc(maps.reshape(-1, self.sizes["maps"] * 36))


class Unflattens(nn.Module):
    """Makes maps of a vector by torch's layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Linear(64, 16 * 36)
        self.unflatten, self.fc = nn.Unflatten(1, (16, 6, 6)), nn.Conv2d(16, 4, 1)

    def forward(self, images_NCHW):
        return self.fc(self.unflatten(self.conv(images_NCHW.flatten(1)).relu())).sum((2, 3))


NUMBERS = {
    ByConstant: {("", "forward:16", 1)},
    ByConfig: {("", "config.hidden", 1)},
    ByClass: {("", "hidden", 1)},
    BySizes: {("", "sizes.maps", 1), ("", "grid.1", 1)},
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_constants_and_sizes_that_objects_hold_follow(kind):
    net = made(kind)
    small, logits = removed(net)
    wanted = F.linear(
        net.conv(IMAGES)[:, KEPT].relu().flatten(1), net.fc.weight.unflatten(1, (16, 36))[:, KEPT].flatten(1)
    )
    torch.testing.assert_close(logits, wanted + net.fc.bias)
    assert set(find_dependencies(net, SHAPE).groups["conv"].numbers) == NUMBERS[kind]
    assert set(find_dependencies(small, SHAPE).groups["conv"].numbers) == NUMBERS[kind]
    again = copy.deepcopy(net)
    apply_edits(again, find_edits(net, small))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(IMAGES), logits)
    assert net(IMAGES).shape == logits.shape  # which holds its own numbers


def test_the_sizes_of_an_unflatten_follow():
    net = made(Unflattens)
    small, logits = removed(net)
    maps = net.conv(IMAGES.flatten(1)).relu().unflatten(1, (16, 6, 6))[:, KEPT]
    torch.testing.assert_close(logits, F.conv2d(maps, net.fc.weight[:, KEPT], net.fc.bias).sum((2, 3)))
    again = copy.deepcopy(net)
    apply_edits(again, find_edits(net, small))
    assert again.unflatten.unflattened_size == (len(KEPT), 6, 6)


class Counting(nn.Module):
    """Its code holds the number of channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)

    def forward(self, maps_NCHW):
        return (maps_NCHW + self.conv(maps_NCHW)).relu().view(-1, 16, 36).unflatten(2, (6, 6))


class Stays(nn.Module):
    """Counts the channels by a number that is read from a text."""

    def forward(self, maps_NCHW):
        return maps_NCHW.view(-1, int("16"), 36).unflatten(2, (6, 6))


class Behind(nn.Module):
    """Three blocks that hold the number of channels, behind another one."""

    def __init__(self, first):
        super().__init__()
        self.conv, self.first = nn.Conv2d(1, 16, 3), first()
        self.blocks, self.fc = nn.Sequential(*(Counting() for _ in range(3))), nn.Linear(16, 4)
        self.runs = []

    def forward(self, images_NCHW):
        self.runs.append("")
        return self.fc(self.blocks(self.first(self.conv(images_NCHW))).mean((2, 3)))


def test_numbers_in_several_blocks_are_lowered_together():
    net = made(lambda: Behind(nn.Identity))
    small, logits = removed(net)
    expected = net.conv(IMAGES)[:, KEPT]
    for block in net.blocks:
        mixed = F.conv2d(expected, block.conv.weight[KEPT][:, KEPT], block.conv.bias[KEPT])
        expected = (expected + mixed).relu()
    torch.testing.assert_close(logits, F.linear(pooled(expected), net.fc.weight[:, KEPT], net.fc.bias))
    assert [block.conv.out_channels for block in small.blocks] == [len(KEPT)] * 3


def test_numbers_behind_the_failure_are_not_tried():
    net = made(lambda: Behind(Stays))
    assert "conv" in find_dependencies(net, SHAPE).whole
    assert len(net.runs) < 20  # with those behind it 27
